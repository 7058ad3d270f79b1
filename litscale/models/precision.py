"""What stays in full precision when a network's weights are converted to half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)

Convert = Callable[[Tensor], Tensor]


def at_least_float32(convert: Convert) -> Convert:
    """Wrap a conversion for ``Module._apply`` so that tensors keep their dtype where it would be half precision."""

    def kept(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        return tensor.to(converted.device) if converted.dtype in HALF else converted

    return kept


class FullPrecision(nn.Module):
    """A module that stays in float32 where the network around it is converted to half precision.

    Its inputs and outputs are float32, so its users convert them.
    """

    def _apply(self, fn: Convert, recurse: bool = True) -> Self:
        return super()._apply(at_least_float32(fn), recurse)
