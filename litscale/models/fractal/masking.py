"""Which patches of a MAR level are hidden: in training, for the likelihood, and step by step in sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from litscale.models.keyed import host_random, mixed, numbers, uniform

ORDERS = ("random", "raster", "confidence")
# how many of ``total`` patches are still hidden after ``step`` of ``steps``
SCHEDULES: dict[str, Callable[[int, int, int], int]] = {
    "cosine": lambda total, step, steps: math.floor(total * math.cos(math.pi / 2 * step / steps)),
    "linear": lambda total, step, steps: total * (steps - step) // steps,
}


def hide(counts: Tensor, order: Tensor) -> Tensor:
    """Hide ``counts[b]`` of the patches of row b: the first ones of its order.

    Args:
        counts: integers ``[B]``.
        order: sort key ``[B, N]``; with independent random numbers every choice is equally likely.

    Returns:
        bool ``[B, N]``, True where hidden.
    """
    return order.argsort(1).argsort(1) < counts[:, None]


def training_counts(rows: int, patches: int, mean: float = 1.0, std: float = 0.25) -> list[int]:
    """Draw the number of hidden patches of each row, 1 to ``patches``.

    Their share is drawn from a normal truncated to [0, 1], and the number is rounded up (MAR, arXiv 2406.11838). The
    host draws it, as it needs to know how many rows the next level has.

    Raises:
        ValueError: the normal has no probability in [0, 1].
    """
    normal = NormalDist(mean, std)
    cumulative = [normal.cdf(count / patches) - normal.cdf(0) for count in range(1, patches + 1)]
    if not cumulative[-1]:
        raise ValueError(f"mask_mean {mean} and mask_std {std} leave no share of hidden patches between 0 and 1")
    return host_random().choices(range(1, patches + 1), cum_weights=cumulative, k=rows)


class Masking:
    """Chooses the hidden patches of the MAR levels in one pass, and the weight of each row.

    Args:
        kind: ``training`` draws the number of hidden patches by :func:`training_counts`; ``likelihood`` hides a uniform
            number m of N patches and weighs them by N / m, which makes the expected weighted sum the mean over all
            orders of the sequential negative log-likelihood (order-agnostic bound, arXiv 2110.02037).
        mean: mean of the share of hidden patches in training, before truncation.
        std: standard deviation of this share, before truncation.
        stratum: (index, number) of this pass among the passes over one batch: pass i draws its counts from the i-th
            part of their range, which lowers the variance of the mean over passes. Only the first masked level of a
            pass is stratified: weights of nested levels multiply, and strata in step would bias the product.
        keys: keys of the canvases, int64 ``[B]``: what ``likelihood`` hides is then a function of a canvas' key and of
            a patch's place alone. Without them it comes from torch's generator, as in training.
    """

    def __init__(
        self,
        kind: str,
        mean: float = 1.0,
        std: float = 0.25,
        stratum: tuple[int, int] = (0, 1),
        keys: Tensor | None = None,
    ) -> None:
        self.kind = kind
        self.mean = mean
        self.std = std
        self.stratum = stratum
        self.keys = keys

    def __call__(self, rows: int, patches: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
        """Draw a mask.

        Returns:
            bool ``[B, N]``, True where hidden, at least one in each row; the weight of each row, float ``[B]``; and the
            number of hidden patches of all rows. In training the host draws this number, and waits for no device.
        """
        if self.kind == "training":
            drawn = training_counts(rows, patches, self.mean, self.std)
            counts = torch.tensor(drawn, device="cpu").to(device, non_blocking=True)
            order = torch.rand(rows, patches, device=device, dtype=torch.float32)
            return hide(counts, order), torch.ones(rows, device=device, dtype=torch.float32), sum(drawn)
        index, number = self.stratum
        self.stratum = (0, 1)
        share, order = self._drawn(rows, patches, device)
        counts = ((index + share) / number * patches).long().clamp(max=patches - 1) + 1
        counts = self._hidden(counts, patches)
        return hide(counts, order), patches / counts.float(), int(counts.sum())

    def descend(self, patches: int, chosen: Tensor | None = None) -> None:
        """Make the patches of the current rows the new rows: all ``[B * N]``, or those at ``chosen``, int64 indices."""
        if self.keys is not None:
            below = mixed(numbers(self.keys, patches)).flatten()
            self.keys = below if chosen is None else below[chosen]

    def _hidden(self, counts: Tensor, patches: int) -> Tensor:
        """Return how many patches of a row are hidden while the next of ``counts`` patches is drawn, int64 ``[B]``."""
        return counts

    def _drawn(self, rows: int, patches: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw a uniform number for each row, float32 ``[B]``, and random sort keys for its patches, ``[B, N]``."""
        if self.keys is None:
            drawn = torch.rand(rows, 1 + patches, device=device, dtype=torch.float32)
            return drawn[:, 0], drawn[:, 1:]
        bits = numbers(self.keys, 1 + patches)
        return uniform(bits[:, 0]), bits[:, 1:]


class StepMasking(Masking):
    """Masks of ``likelihood`` for a sampler that reveals several patches in a step, independently of each other.

    A patch is scored while all patches of its own step and of later steps are hidden. The expected weighted sum is
    therefore the negative log-likelihood of the sampler's canvases, averaged over random orders.

    Args:
        iterations: steps of each level.
        schedules: schedule of each level, see :func:`masking_schedule`.
        stratum: as in `Masking`.
        keys: as in `Masking`.
    """

    def __init__(
        self,
        iterations: list[int],
        schedules: list[str],
        stratum: tuple[int, int] = (0, 1),
        keys: Tensor | None = None,
    ) -> None:
        super().__init__("likelihood", stratum=stratum, keys=keys)
        self._steps = list(zip(iterations, schedules, strict=True))
        self._level = 0

    def descend(self, patches: int, chosen: Tensor | None = None) -> None:
        """Go down one level, as `Masking.descend` does."""
        super().descend(patches, chosen)
        self._level += 1

    def _hidden(self, counts: Tensor, patches: int) -> Tensor:
        remaining = masking_schedule([patches], *self._steps[self._level])[:, 0].flip(0).to(counts.device)
        return remaining[torch.searchsorted(remaining, counts)]  # the last step that begins with no fewer


class SharedMasking(Masking):
    """Gives several networks the same masks: the first pass draws them, and after :meth:`rewind` they are repeated.

    Args:
        source: draws the masks; its keys are not followed down the recursion.
    """

    def __init__(self, source: Masking) -> None:
        super().__init__(source.kind)
        self._source = source
        self._masks: list[tuple[Tensor, Tensor, int]] = []
        self._next = 0

    def __call__(self, rows: int, patches: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
        """Draw a mask, or repeat the next one of the first pass; the result is as in :meth:`Masking.__call__`."""
        if self._next == len(self._masks):
            self._masks.append(self._source(rows, patches, device))
        self._next += 1
        return self._masks[self._next - 1]

    def rewind(self) -> None:
        """Begin another pass over the same batch, which gets the same masks."""
        self._next = 0


def masking_schedule(counts: list[int], iterations: int, kind: str = "cosine") -> Tensor:
    """Return how many patches remain hidden after each sampling step.

    Every step of a row reveals at least one patch; a row with fewer patches than iterations takes fewer steps.

    Args:
        counts: number of patches to generate in each row.
        iterations: most steps that a row takes.
        kind: ``cosine`` reveals few patches at first and many at last (MaskGIT, arXiv 2202.04200), ``linear`` equally
            many in each step.

    Returns:
        int64 ``[steps + 1, B]``; first the counts, last zeros.
    """
    remaining = [list(counts)]
    for k in range(min(max(counts, default=0), iterations)):
        row = []
        for before, total in zip(remaining[-1], counts, strict=True):
            steps = min(total, iterations)
            left = SCHEDULES[kind](total, k + 1, steps) if k + 1 < steps else 0
            row.append(min(before - 1, max(1, left)) if k + 1 < steps else 0)
        remaining.append(row)
    return torch.tensor(remaining, dtype=torch.long).reshape(len(remaining), len(counts))


def generation_order(kind: str, scan: Tensor, keys: Tensor) -> Tensor:
    """Return a sort key of each patch for :func:`generation_queue`; a lower one comes earlier.

    Args:
        kind: ``raster`` follows the scan order; otherwise random.
        scan: raster indices in scan order, ``[N]``.
        keys: keys of the patches, int64 ``[B, N]``, which alone determine a random order.

    Returns:
        int64 ``[B, N]``, in 0..2**60 - 1.
    """
    if kind == "raster":
        return scan.argsort().expand(len(keys), -1)
    return keys & (2**60 - 1)


def generation_queue(unknown: Tensor, partial: Tensor, order: Tensor) -> Tensor:
    """Return the patches in the order in which they are generated.

    Args:
        unknown: bool ``[B, N]``: patches with anything to generate.
        partial: bool ``[B, N]``: those among them with some known cells; they come first, so that what is known in them
            is context for the rest from the first step.
        order: int64 ``[B, N]``, see :func:`generation_order`.

    Returns:
        Indices of patches, int64 ``[B, N]``: in each row first the unknown ones, then the others.
    """
    turn = 2 * ~unknown + (unknown & ~partial)
    return (order + turn * 2**60).argsort(dim=1)


def renewed_patches(queue: Tensor, schedule: Tensor, step: int, drawn: Tensor) -> Tensor:
    """Return the patches that a step with a token cache computes again: those revealed last and those it draws.

    Which patches of a row these are depends on that row alone, so that a sample is the same in any batch.

    Args:
        queue: result of :func:`generation_queue`, int64 ``[B, N]``.
        schedule: result of :func:`masking_schedule`.
        step: the step, from 2.
        drawn: how many patches of each row it draws, int64 ``[B]``.

    Returns:
        Raster indices int64 ``[B, n]``, and N where a row has fewer.
    """
    first = schedule[0] - schedule[step - 2]
    end = schedule[0] - schedule[step - 1] + drawn
    place = first[:, None] + torch.arange(int((end - first).max()))
    index = queue.gather(1, place.clamp(max=queue.shape[1] - 1).to(queue.device))
    return index.masked_fill((place >= end[:, None]).to(queue.device), queue.shape[1])
