"""A mean that adds up in float32 and leaves nothing out."""

from __future__ import annotations

import torch
from torchmetrics import MeanMetric


class Mean(MeanMetric):
    """The mean of all values, also of those that are no numbers, added up in float32.

    torchmetrics rounds values to the dtype that torch's default was when the metric was last moved: half precision
    under ``trainer.precision`` bf16-true.
    """

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")

    @property
    def dtype(self) -> torch.dtype:
        """What values are converted to."""
        return torch.float32
