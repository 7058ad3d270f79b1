"""Means of statistics of rolls, and their comparison with those of a reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from litscale.music import Roll, statistics
from litscale.music.statistics import NAMES


class MusicStatistics(Metric):
    """Means of `litscale.music.statistics` over rolls; the mean of a statistic is over the rolls that define it.

    All values are kept, nine floats for each roll, and gathered from all ranks, so that histograms can be compared.

    Args:
        beats_per_bar: Number of quarter notes in a bar, for the groove; None takes that of the format of each roll.
        bins: Number of bins of the histograms in `compare`.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: ``bins`` is below 1.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    values: list[Tensor]

    def __init__(self, beats_per_bar: float | None = None, bins: int = 20, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}")
        self.beats_per_bar = beats_per_bar
        self.bins = bins
        # The state is flat, because torchmetrics represents a rank without rolls by a flat empty tensor.
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, rolls: Sequence[Roll]) -> None:
        """Add any number of rolls, of any sizes."""
        for roll in rolls:
            values = statistics(roll, self.beats_per_bar)
            row = torch.tensor([values[name] for name in NAMES], dtype=torch.float32, device=self.device)
            self.values.append(row)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each statistic.

        Returns:
            float32 scalars by the names of `litscale.music.statistics`, NaN for statistics that no roll defines.
        """
        return dict(zip(NAMES, self._table().nanmean(dim=0), strict=True))

    def compare(self, reference: MusicStatistics) -> dict[str, Tensor]:
        """Compare the rolls of this metric with those of a reference.

        If there are several ranks, all must call this together, as with ``compute``.

        Args:
            reference: The statistics of other rolls, such as real music.

        Returns:
            For each statistic the float32 scalars ``{name}_ratio`` and ``{name}_histogram_overlap``. The ratio is that
            of the mean to the mean of the reference, and 1 if both are 0. The overlap, in 0..1, is the area that both
            normalised histograms share; their bins divide the joint range evenly, and it is 1 if all values are equal.
            Both are NaN if one of the two has no value. (The overlapping area that papers report is of densities of
            distances: `litscale.music.set_distances`.)
        """
        result = {}
        for name, own, other in zip(NAMES, self._gathered().T, reference._gathered().T, strict=True):
            own, other = own[~own.isnan()], other[~other.isnan()]
            ratio = own.mean() / other.mean()
            both_zero = len(own) > 0 and len(other) > 0 and own.mean() == 0 and other.mean() == 0
            result[f"{name}_ratio"] = torch.ones_like(ratio) if both_zero else ratio
            result[f"{name}_histogram_overlap"] = _histogram_overlap(own, other, self.bins)
        return result

    def _table(self) -> Tensor:
        """Return all values of this rank, or of all ranks if they are synchronised, float32 ``[roll, statistic]``."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.empty(0, device=self.device)
        return values.view(-1, len(NAMES))

    def _gathered(self) -> Tensor:
        """Return all values of all ranks, float32 ``[roll, statistic]``."""
        if self._is_synced:
            return self._table()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, process_group=self.process_group):
            return self._table().clone()


def _histogram_overlap(own: Tensor, other: Tensor, bins: int) -> Tensor:
    """Return the area that the normalised histograms of two float vectors share, a scalar."""
    if not len(own) or not len(other):
        return own.new_tensor(float("nan"))
    both = torch.cat([own, other])
    low, high = both.min().item(), both.max().item()
    if low == high:
        return own.new_tensor(1.0)
    shares = [torch.histc(x, bins, low, high) / len(x) for x in (own, other)]
    return torch.minimum(*shares).sum().to(own.device)
