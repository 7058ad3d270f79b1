"""`DecodingStatistics`: what exact parallel decoding takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from litscale.models.fractal import GenerationReport, decoding_summary

ADDED = tuple(name for name in GenerationReport().counts() if name != "margin")


class DecodingStatistics(Metric):
    """The statistics of exact parallel decoding over all calls of all ranks: counts are summed first, and divided then.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor
    margin: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(len(ADDED), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("margin", torch.full((), math.inf, dtype=torch.float32), dist_reduce_fx="min")

    def update(self, counts: Mapping[str, float]) -> None:
        """Add the counts of a call, those of `litscale.models.fractal.GenerationReport`; nothing if they are empty."""
        if counts:
            self.sums += torch.tensor([int(counts[name]) for name in ADDED], device=self.sums.device)
            self.margin = self.margin.clamp(max=counts["margin"])

    def compute(self) -> dict[str, Tensor]:
        """Return what `litscale.models.fractal.decoding_summary` makes of all counts.

        Returns:
            float32 scalars by name; empty if no patch was decoded in parallel.
        """
        counts = dict(zip(ADDED, self.sums.tolist(), strict=True)) | {"margin": float(self.margin)}
        values = decoding_summary(counts).items()
        return {name: torch.tensor(value, dtype=torch.float32, device=self.sums.device) for name, value in values}
