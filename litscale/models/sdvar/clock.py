"""A stopwatch for the parts of a decoding run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds of named parts of a run, and of the whole of it.

    Args:
        device: where the networks are.
        profile: also time the parts on an accelerator, which has to be waited for at each part and becomes a little
            slower; on a CPU the parts are always timed.
    """

    def __init__(self, device: torch.device, profile: bool) -> None:
        self.device = device
        self.profile = profile or device.type == "cpu"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Time the block as the whole run, under the name ``wall``."""
        start = self.now()
        yield
        self.seconds["wall"] = self.now() - start

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to the part of this name, if parts are timed."""
        if not self.profile:
            yield
            return
        start = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start

    def now(self) -> float:
        """Wait until the device has finished its work, and return the time in seconds."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()
