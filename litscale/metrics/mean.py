"""`Mean`, which sums in float32 and counts NaN."""

from __future__ import annotations

import torch
from torchmetrics import MeanMetric


class Mean(MeanMetric):
    """The mean of all values, summed in float32; it is NaN if one of them is.

    `MeanMetric` rounds values to the default dtype that torch had when the metric was last moved, which is half
    precision under ``trainer.precision`` bf16-true.
    """

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that values are converted to."""
        return torch.float32
