"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Tensor:
    """The output of a block.

    Args:
        block: is called.
        inputs: of the block.
        recompute: keep the inputs only, and run the block again in the backward pass.
    """
    return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs))
