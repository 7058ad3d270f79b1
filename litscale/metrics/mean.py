"""`Mean`, which sums in float32, counts NaN and weighs values."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanMetric


class Mean(MeanMetric):
    """The mean of all values, summed in float32; it is NaN if one of them is.

    `MeanMetric` rounds values to the default dtype that torch had when the metric was last moved, which is half
    precision under ``trainer.precision`` bf16-true, and where it counts NaN it ignores weights (torchmetrics 1.9).
    """

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that values are converted to."""
        return torch.float32

    def update(self, value: Tensor | float, weight: Tensor | float | None = None) -> None:
        """Add values of any shape, and what each of them weighs, 1 by default."""
        if weight is None:
            super().update(value)
            return
        value, weight = (torch.as_tensor(x, dtype=self.dtype, device=self.device) for x in (value, weight))
        weight = weight.broadcast_to(value.shape)
        self.mean_value += (value * weight).sum()
        self.weight += weight.sum()
