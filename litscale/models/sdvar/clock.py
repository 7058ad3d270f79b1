"""Where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds of named parts of a run, and of the whole of it.

    Args:
        device: where the networks are.
        profile: also time the parts. On a CPU this is free; accelerators have to be waited for at every part, which
            slows them down a little.
    """

    def __init__(self, device: torch.device, profile: bool) -> None:
        self.device = device
        self.profile = profile or device.type == "cpu"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Time everything, as ``wall``."""
        start = self.now()
        yield
        self.seconds["wall"] = self.now() - start

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part."""
        if not self.profile:
            yield
            return
        start = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start

    def now(self) -> float:
        """Seconds, when the device has finished what it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()
