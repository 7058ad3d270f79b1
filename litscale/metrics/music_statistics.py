"""Statistics of many rolls, and how near they come to those of other rolls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from litscale.music import Roll, statistics
from litscale.music.statistics import NAMES


class MusicStatistics(Metric):
    """Means of `litscale.music.statistics` over rolls; a statistic that is undefined for a roll leaves that roll out.

    All values are kept, nine floats a roll, so that histograms can be compared; they are gathered from all
    ranks.

    Args:
        beats_per_bar: quarter notes per bar, for the groove; None is those of each roll's format.
        bins: number of histogram bins in `compare`.
        **kwargs: those of `torchmetrics.Metric`.

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
        # Flat, because torchmetrics stands a flat empty tensor in for a rank that saw no rolls.
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, rolls: Sequence[Roll]) -> None:
        """Take in rolls.

        Args:
            rolls: any number of rolls, of any sizes.
        """
        for roll in rolls:
            values = statistics(roll, self.beats_per_bar)
            row = torch.tensor([values[name] for name in NAMES], dtype=torch.float32, device=self.device)
            self.values.append(row)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each statistic.

        Returns:
            float32 scalars under the names of `litscale.music.statistics`, NaN where no roll defined the statistic.
        """
        return dict(zip(NAMES, self._table().nanmean(dim=0), strict=True))

    def compare(self, reference: MusicStatistics) -> dict[str, Tensor]:
        """How near the rolls seen here come to the rolls seen by ``reference``.

        Distributed, all ranks must call this together, as with ``compute``.

        Args:
            reference: statistics of other rolls, of real music, say.

        Returns:
            For each statistic, float32 scalars ``{name}_ratio``, the mean here over the mean there (1 if both
            are 0), and ``{name}_overlap``, the area in [0, 1] that the two histograms share, with bins that
            cut the joint range evenly (1 if all values here and there are one and the same). NaN where either
            side has no value.
        """
        result = {}
        for name, own, other in zip(NAMES, self._gathered().T, reference._gathered().T, strict=True):
            own, other = own[~own.isnan()], other[~other.isnan()]
            ratio = own.mean() / other.mean()
            both_zero = len(own) > 0 and len(other) > 0 and own.mean() == 0 and other.mean() == 0
            result[f"{name}_ratio"] = torch.ones_like(ratio) if both_zero else ratio
            result[f"{name}_overlap"] = _overlap(own, other, self.bins)
        return result

    def _table(self) -> Tensor:
        """float32 ``[roll, statistic]``."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.empty(0, device=self.device)
        return values.view(-1, len(NAMES))

    def _gathered(self) -> Tensor:
        """`_table` over all ranks."""
        if self._is_synced:
            return self._table()
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, process_group=self.process_group):
            return self._table().clone()


def _overlap(own: Tensor, other: Tensor, bins: int) -> Tensor:
    """The area that the histograms of two float vectors share, each scaled to an area of 1; a scalar."""
    if not len(own) or not len(other):
        return own.new_tensor(float("nan"))
    both = torch.cat([own, other])
    low, high = both.min().item(), both.max().item()
    if low == high:
        return own.new_tensor(1.0)
    shares = [torch.histc(x, bins, low, high) / len(x) for x in (own, other)]
    return torch.minimum(*shares).sum().to(own.device)
