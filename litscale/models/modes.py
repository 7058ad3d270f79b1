"""Switching a network to evaluation and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off inside the block, and back afterwards."""
    was = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was)
