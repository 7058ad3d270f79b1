"""How many threads of a CPU generation takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

WIDE = 1024  # from this width on, an operator of one sampling step is long enough to be shared between threads


def width_of(network: nn.Module) -> int:
    """Return the width of a network's widest transformer: the largest shorter side of its linear layers."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return max((min(layer.in_features, layer.out_features) for layer in linear), default=0)


def checked_threads(threads: int | None) -> int | None:
    """Check the option ``sampling_threads``, and return it.

    Raises:
        ValueError: it is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"sampling_threads must be at least 1, or null, not {threads}")
    return threads


@contextmanager
def limited_threads(network: nn.Module, threads: int | None) -> Iterator[None]:
    """Set torch's number of threads for generation inside the block, and restore it afterwards.

    Narrow networks generate with very many operators of a few microseconds, in which threads mostly wait for each
    other. If another program uses their core, they wait many times as long as the operator takes.

    Args:
        network: The network that generates.
        threads: The number; null takes one for networks narrower than 1024, and leaves the number as it is for others.
    """
    before = torch.get_num_threads()
    if threads is None:
        threads = before if width_of(network) >= WIDE else 1
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
