"""`StandardError`: of a likelihood that is estimated by several random passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class StandardError(Metric):
    """Standard error of the mean over a data set, each of whose values is estimated by several random passes.

    It measures the randomness of the passes, not that of the data. If the passes are stratified, as those of
    `Fractal.nll_of_passes`, it overestimates the error somewhat.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    variance: Tensor
    number: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("variance", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, estimates: Tensor) -> None:
        """Add the estimates of at least two passes, float ``[passes, B]``."""
        self.variance += (estimates.double().var(0) / len(estimates)).sum()
        self.number += estimates.shape[1]

    def compute(self) -> Tensor:
        """Return the standard error, a float32 scalar."""
        return (self.variance.sqrt() / self.number).float()
