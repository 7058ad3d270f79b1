"""How evenly a codebook is used, scale by scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

LEAST_SHARE = 0.08  # of even use


def usage(counts: Tensor) -> Tensor:
    """Percentage of codes in use at each scale: those with at least 8 % of even use of all codes at that scale.

    The share is VAR's; that one compares each scale with the last one's even use, which coarse scales with few tokens
    cannot reach (``litscale.models.var.Quantizer.usage``).

    Args:
        counts: of codes at each scale, ``[S, V]``.

    Returns:
        float64 ``[S]``.
    """
    counts = counts.double()
    used = (counts > 0) & (counts >= LEAST_SHARE * counts.mean(1, keepdim=True))
    return used.double().mean(1) * 100


def perplexity(counts: Tensor) -> Tensor:
    """The number of evenly used codes with the same entropy, at each scale.

    Args:
        counts: ``[S, V]``.

    Returns:
        float64 ``[S]``, from 1 to V.
    """
    counts = counts.double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1e-12)
    return torch.special.entr(shares).sum(1).exp()


def report(counts: Tensor) -> dict[str, Tensor]:
    """``usage/scale_0``, ... in percent and ``perplexity/scale_0``, ..., of counts ``[S, V]``."""
    named = {"usage": usage(counts), "perplexity": perplexity(counts)}
    return {f"{name}/scale_{k}": value for name, values in named.items() for k, value in enumerate(values.float())}


class CodeCounts(Metric):
    """Adds up how often codes were used, over all processes.

    Args:
        scales: S.
        vocab: V.
        **kwargs: those of `torchmetrics.Metric`.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, scales: int, vocab: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(scales, vocab, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Take in counts, int64 ``[S, V]``."""
        self.counts += counts

    def compute(self) -> Tensor:
        """The sums, int64 ``[S, V]``."""
        return self.counts
