"""What the benchmarks share: clocks, paired runs, memory, and the line that says what they ran on."""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of options, which must be spelled out; its help is the text of the program."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def surroundings(device: str, precision: str = "float32") -> str:
    """Return versions and hardware in one line."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {device} ({where}), Python {platform.python_version()}, {precision}"


def now(device: str) -> float:
    """Return the seconds of a clock, after the device has done all that it has to do."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def cpu_now(device: str) -> float:
    """Return the seconds that the process has computed, which others hardly change; on a GPU those of :func:`now`."""
    return time.process_time() if device == "cpu" else now(device)


def paired(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str,
    warm_ups: int = 1,
    clock: Callable[[str], float] = now,
) -> dict[str, list[float]]:
    """Measure the times of several runs, taken in turn, after so many rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-warm_ups, repeats):
        for name, run in runs.items():
            start = clock(device)
            run()
            if repeat >= 0:
                times[name].append(clock(device) - start)
    return times


def ratio(times: list[float], reference: list[float]) -> float:
    """Return the median of the ratios of neighbouring runs, in which a drift of the machine's speed cancels out."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def memory(device: str) -> float:
    """Return the peak memory so far, in GB, of the device, or of the process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Clock:
    """Measures the time spent in functions, by name, without the time of watched functions that they call."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.active: list[str] = []
        self.last = 0.0

    def tick(self) -> None:
        """Add the time since the last tick to the innermost function."""
        time = now(self.device)
        if self.active:
            self.seconds[self.active[-1]] += time - self.last
        self.last = time

    def watch(self, name: str | Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same function, timed, under a name or under what a function makes of its arguments."""

        def timed(*args: Any, **options: Any) -> Any:
            self.tick()
            self.active.append(name if isinstance(name, str) else name(*args, **options))
            try:
                return function(*args, **options)
            finally:
                self.tick()
                self.active.pop()

        return timed

    def watch_methods(self, owner: object, name: str | Callable[..., str], *methods: str) -> None:
        """Time methods of an object, under a name as in :meth:`watch`."""
        for method in methods:
            setattr(owner, method, self.watch(name, getattr(owner, method)))

    def watch_made(self, owner: object, make: str, name: str, *methods: str) -> None:
        """Time methods of each object that the method ``make`` of the owner makes."""
        original = getattr(owner, make)

        def made(*args: Any) -> Any:
            one = original(*args)
            self.watch_methods(one, name, *methods)
            return one

        setattr(owner, make, made)

    def measure(self, run: Callable[[], object], repeats: int, warm_ups: int = 1) -> tuple[float, dict[str, float]]:
        """Return the median seconds of a run, and the share of each part in all runs."""
        for _ in range(warm_ups):
            run()
        self.seconds.clear()
        times = paired({"run": run}, repeats, self.device, warm_ups=0)["run"]
        return statistics.median(times), {name: part / sum(times) for name, part in self.seconds.items()}


def shares(parts: dict[str, float]) -> str:
    """Describe parts in words."""
    return ", ".join(f"{name} {share:.0%}" for name, share in parts.items())
