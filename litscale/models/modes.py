"""Switching a network to evaluation and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, in which dropout is off, inside the block, and restore its mode afterwards."""
    was = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was)
