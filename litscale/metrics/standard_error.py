"""`StandardError`: of a likelihood that is estimated by several random passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class StandardError(Metric):
    """Standard error of the mean over a data set of values that are each estimated by several random passes.

    It is about the passes, not about the choice of the data. Of stratified passes (`Fractal.nll`) it is
    somewhat too large.

    Args:
        **kwargs: those of `torchmetrics.Metric`.
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
        """Take in float ``[passes, B]``, at least two passes."""
        self.variance += (estimates.double().var(0) / len(estimates)).sum()
        self.number += estimates.shape[1]

    def compute(self) -> Tensor:
        """Float scalar."""
        return (self.variance.sqrt() / self.number).float()
