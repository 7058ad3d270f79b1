"""Usage and perplexity of a codebook at each scale.

Dimensions: S scales, V codes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

LEAST_SHARE = 0.08  # of the mean count of a code


def usage(counts: Tensor) -> Tensor:
    """Return the percentage of codes in use at each scale.

    A code is in use at a scale if its count is at least 8 % of the mean count there. VAR compares the counts of all
    scales with 8 % of the mean count of the last one (``litscale.models.var.Quantizer.usage``), which codes of coarse
    scales cannot reach, since these have few tokens.

    Args:
        counts: How often each code was used at each scale, ``[S, V]``.

    Returns:
        Percentages, float64 ``[S]``.
    """
    counts = counts.double()
    used = (counts > 0) & (counts >= LEAST_SHARE * counts.mean(1, keepdim=True))
    return used.double().mean(1) * 100


def perplexity(counts: Tensor) -> Tensor:
    """Return the perplexity of the codes at each scale: the number of evenly used codes that have the same entropy.

    Args:
        counts: How often each code was used at each scale, ``[S, V]``.

    Returns:
        float64 ``[S]``, from 1 to V.
    """
    counts = counts.double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1e-12)
    return torch.special.entr(shares).sum(1).exp()


def report(counts: Tensor) -> dict[str, Tensor]:
    """Return ``usage/scale_<k>``, in percent, and ``perplexity/scale_<k>`` of counts ``[S, V]``."""
    named = {"usage": usage(counts), "perplexity": perplexity(counts)}
    return {f"{name}/scale_{k}": value for name, values in named.items() for k, value in enumerate(values.float())}


class CodeCounts(Metric):
    """Sums how often codes were used, over batches and processes.

    Args:
        scales: Number of scales S.
        vocab: Number of codes V.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, scales: int, vocab: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(scales, vocab, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Add counts, int64 ``[S, V]``."""
        self.counts += counts

    def compute(self) -> Tensor:
        """Return the sums, int64 ``[S, V]``."""
        return self.counts
