"""Late scales of which only the tokens whose content still changes are computed (FastVAR, arXiv 2503.23367).

Dimensions: B rows, n tokens of a scale, m computed tokens of all scales of a pass, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from litscale.models.numbers import one_or_more, real, whole
from litscale.models.var.scales import shrink


@dataclass(frozen=True)
class Pruning:
    """How many tokens of late scales are computed. Training does not see this, so it is lossy.

    Each branch of each block computes the tokens that deviate most from the mean of their scale. The others take what
    the branch gave at the scale before, interpolated. Only computed tokens have keys and values. The first scale is
    computed as a whole.

    Args:
        from_scale: the first scale of which tokens are left out, at least 1.
        ratios: the fraction of tokens that is computed, above 0 and at most 1, of this scale and of those after it; the
            last one holds for all further scales.

    Raises:
        ValueError: an option is out of range.
    """

    from_scale: int
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        # a list could not be hashed
        object.__setattr__(self, "from_scale", whole("from_scale", self.from_scale))
        ratios = one_or_more("ratios", self.ratios, real)
        object.__setattr__(self, "ratios", ratios if isinstance(ratios, tuple) else (ratios,))
        if self.from_scale < 1:
            raise ValueError(f"from_scale must be at least 1, not {self.from_scale}: no scale is before the first one")
        if not self.ratios or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise ValueError(f"ratios must be above 0 and at most 1, not {list(self.ratios)}")

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Return the number of computed tokens of each scale, given the number n of all its tokens."""
        late = range(len(sizes) - self.from_scale)
        shares = [self.ratios[min(j, len(self.ratios) - 1)] for j in late]
        return [
            *sizes[: self.from_scale],
            *(max(1, round(s * n)) for s, n in zip(shares, sizes[self.from_scale :], strict=True)),
        ]


@dataclass
class PrunedPass:
    """One pass over consecutive scales of which some are pruned.

    Attributes:
        sides: side of each scale's token map.
        counts: number of computed tokens of each scale.
        features: output of each branch for the scale before the pass, float ``[B, n, D]``, and after the pass for its
            last scale. There may be more rows than the pass has; then the first ones are read.
    """

    sides: Sequence[int]
    counts: Sequence[int]
    features: dict[object, Tensor] = field(default_factory=dict)

    def branch(self, key: object, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute a branch of a block for some tokens, and take the output for the others from the scale before.

        Args:
            key: identifies the branch.
            x: what the branch reads, ``[B, tokens, D]``.
            compute: the branch itself, ``[B, m, D]`` to ``[B, m, D]``.

        Returns:
            ``[B, tokens, D]``.
        """
        # 1. the tokens that are computed
        places = [self._chosen(part, count) for part, count in zip(self._by_scale(x), self.counts, strict=True)]
        starts = accumulate((side**2 for side in self.sides), initial=0)
        indices = torch.cat([place + start for place, start in zip(places, starts, strict=False)], dim=1)
        computed = compute(x.gather(1, indices[..., None].expand(-1, -1, x.shape[-1])))
        # 2. the others, from the scale before
        whole, before = [], self.features.get(key)
        for side, place, part in zip(self.sides, places, computed.split(list(self.counts), dim=1), strict=True):
            if part.shape[1] < side**2:
                assert before is not None  # the first scale is never pruned
                part = self._grown(before[: len(x)], side).scatter(1, place[..., None].expand_as(part), part)
            whole.append(part)
            before = part
        self.features[key] = whole[-1]
        return torch.cat(whole, dim=1)

    def mask(self, cached: int, device: torch.device) -> Tensor | None:
        """Return where the m computed tokens may attend, bool ``[m, cached + m]``; None for everywhere."""
        if len(self.counts) == 1:
            return None
        scale = torch.arange(len(self.counts), device=device).repeat_interleave(
            torch.tensor(self.counts, device=device), output_size=sum(self.counts)
        )
        return torch.nn.functional.pad(scale[:, None] >= scale, (cached, 0), value=True)

    def _by_scale(self, x: Tensor) -> list[Tensor]:
        return list(x.split([side**2 for side in self.sides], dim=1))

    def _chosen(self, x: Tensor, count: int) -> Tensor:
        """Choose the places of the tokens that deviate most from their mean, in raster order, int64 ``[B, count]``."""
        deviation = (x - x.mean(1, keepdim=True)).square().sum(-1)
        return deviation.topk(count, dim=1).indices.sort(dim=1).values

    def _grown(self, x: Tensor, side: int) -> Tensor:
        """Resize features ``[B, n, D]`` of one scale to the size of another, ``[B, side * side, D]``."""
        before = round(x.shape[1] ** 0.5)
        return shrink(x.transpose(1, 2).unflatten(2, (before, before)), side).flatten(2).transpose(1, 2)
