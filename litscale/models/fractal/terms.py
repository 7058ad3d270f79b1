"""What one teacher-forced pass over a batch yields: cross-entropies by level, read as a loss or as a likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class FractalOutput:
    """Result of a training pass.

    Attributes:
        loss: scalar, sum of the level losses.
        level_losses: nats per symbol of every level that has a loss of its own: ``leaf``, and ``level_<i>`` for the
            guiding values of level i.
        mask_fractions: share of hidden patches of each MAR level, ``level_<i>``.
        entropy: mean entropy of the leaf's predictions in nats, where it was asked for.
    """

    loss: Tensor
    level_losses: dict[str, Tensor] = field(default_factory=dict)
    mask_fractions: dict[str, Tensor] = field(default_factory=dict)
    entropy: Tensor | None = None


@dataclass
class LossTerms:
    """Cross-entropies collected down the recursion.

    Each entry of ``nats`` is ``[R, C]`` for R rows of one level, with ``weight`` ``[R]`` (what the row stands for in a
    likelihood) and ``owner`` ``[R]`` (the canvas of the batch that it belongs to).
    """

    with_entropy: bool = False
    nats: dict[str, Tensor] = field(default_factory=dict)
    weight: dict[str, Tensor] = field(default_factory=dict)
    owner: dict[str, Tensor] = field(default_factory=dict)
    mask_fractions: dict[str, Tensor] = field(default_factory=dict)
    entropy: Tensor | None = None

    def add(self, name: str, nats: Tensor, weight: Tensor, owner: Tensor) -> None:
        """Enter the rows of one level."""
        self.nats[name], self.weight[name], self.owner[name] = nats, weight, owner

    def output(self, channel_weights: Tensor | None) -> FractalOutput:
        """Unweighted mean over the rows of each level; channels weigh the same unless weights ``[C]`` are given."""
        losses = {}
        for name, nats in self.nats.items():
            if channel_weights is None:
                losses[name] = nats.mean()
            else:
                losses[name] = (nats * channel_weights).sum(-1).mean() / channel_weights.sum()
        return FractalOutput(torch.stack(list(losses.values())).sum(), losses, self.mask_fractions, self.entropy)

    def nats_per_canvas(self, batch: int) -> Tensor:
        """Weighted sum over all levels for each canvas, ``[B]``."""
        total = next(iter(self.weight.values())).new_zeros(batch, dtype=torch.float64)
        for name, nats in self.nats.items():
            total = total.index_add(0, self.owner[name], nats.sum(-1).double() * self.weight[name].double())
        return total.float()
