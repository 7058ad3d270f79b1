"""Usage and perplexity of a codebook at each scale.

Dimensions: S scales, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
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


class UsageAlarm:
    """Warns, once in a run, of scales whose usage stays under a threshold.

    Args:
        threshold: The least usage that gives no alarm, in percent; 0 gives none at all.
        patch_nums: Sides of the scales; one of a single token is not looked at, as it has few tokens to use codes for.
    """

    def __init__(self, threshold: float, patch_nums: Sequence[int]) -> None:
        self.threshold, self.patch_nums = threshold, patch_nums
        self._low: set[int] = set()  # scales that were low the last time
        self._rang = False

    def check(self, scores: Mapping[str, Tensor]) -> None:
        """Warn of scales whose usage is low in these scores and was low in those of the validation before.

        Args:
            scores: With ``usage/scale_<k>`` of all scales, in percent.
        """
        if self._rang or not self.threshold:
            return
        usages = {k: float(scores[f"usage/scale_{k}"]) for k, side in enumerate(self.patch_nums) if side > 1}
        low = {k for k, value in usages.items() if value < self.threshold}
        if staying := sorted(low & self._low):
            self._rang = True
            listed = ", ".join(f"scale {k} {usages[k]:.0f} %" for k in staying)
            rank_zero_warn(
                f"codes fall out of use: usage stays under {self.threshold:g} % ({listed}). Set network.entropy (such "
                "as 0.3), network.znorm with phis 0, network.rotation or network.simvq, lower restart_every, or take a "
                "smaller vocab"
            )
        self._low = low


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
