"""Rolls, and what one of two processes does with them; a module of its own, since new processes look it up by name."""

from __future__ import annotations

import numpy as np
import torch

from litscale.metrics import MusicStatistics
from litscale.music import Roll


def random_rolls(count: int, seed: int, density: float = 0.03) -> list[Roll]:
    rng = np.random.default_rng(seed)
    shape = (128, 32)
    return [Roll((rng.integers(1, 128, shape) * (rng.random(shape) < density)).astype(np.uint8)) for _ in range(count)]


def filled(*batches: list[Roll]) -> MusicStatistics:
    metric = MusicStatistics()
    for batch in batches:
        metric.update(batch)
    return metric


def rank(number: int, rendezvous: str, results: dict) -> None:
    """Take part as rank ``number``."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=2)
    own = filled(random_rolls(3, 0)) if number == 0 else MusicStatistics()  # rank 1 sees no rolls
    reference = filled(random_rolls(1 + number, 5 + number))
    compared = own.compare(reference)
    results[number] = {name: value.item() for name, value in {**own.compute(), **compared}.items()}
    torch.distributed.destroy_process_group()
