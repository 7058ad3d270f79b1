"""What one teacher-forced pass over a batch yields: cross-entropies by level, read as a loss or as a likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@dataclass
class FractalOutput:
    """Result of a training pass.

    Attributes:
        loss: scalar that is minimised: the sum of the level losses, or with a teacher a mixture of that sum and the sum
            of the divergences.
        level_losses: nats per symbol of every level that has a loss of its own: ``leaf``, and ``level_<i>`` for the
            guiding values of level i.
        divergences: KL(teacher || model) in nats per symbol of the same levels; empty without a teacher.
        mask_fractions: share of hidden patches of each MAR level, ``level_<i>``.
        entropy: mean entropy of the leaf's predictions in nats, where it was asked for.
    """

    loss: Tensor
    level_losses: dict[str, Tensor] = field(default_factory=dict)
    divergences: dict[str, Tensor] = field(default_factory=dict)
    mask_fractions: dict[str, Tensor] = field(default_factory=dict)
    entropy: Tensor | None = None


@dataclass
class LossTerms:
    """Cross-entropies collected down the recursion.

    Each entry of ``nats`` is ``[R, C]`` for R rows of one level, with ``weight`` ``[R]`` (what the row stands for in a
    likelihood) and ``owner`` ``[R]`` (the column that it begins in, counted over all canvases of the batch).

    Attributes:
        with_entropy: whether to measure the entropy of the leaf's predictions.
        keep_logits: whether to keep the ``logits`` of each level, float32 ``[R, C, A]``.
        teacher: the logits that a teacher gave the same rows; with them ``divergence`` has an entry like ``nats`` for
            each level, KL(teacher || model).
        columns: W, by which owners are counted.
    """

    with_entropy: bool = False
    keep_logits: bool = False
    teacher: dict[str, Tensor] | None = None
    nats: dict[str, Tensor] = field(default_factory=dict)
    divergence: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)
    weight: dict[str, Tensor] = field(default_factory=dict)
    owner: dict[str, Tensor] = field(default_factory=dict)
    mask_fractions: dict[str, Tensor] = field(default_factory=dict)
    entropy: Tensor | None = None
    columns: int = 1

    def add(self, name: str, nats: Tensor, weight: Tensor, owner: Tensor, logits: Tensor | None = None) -> None:
        """Add the rows of one level. Divergence, entropy and kept logits need their ``logits``, ``[R, C, A]``."""
        self.nats[name], self.weight[name], self.owner[name] = nats, weight, owner
        if logits is None:
            return
        if self.keep_logits:
            self.logits[name] = logits
        if self.teacher is not None:
            log_p, log_q = self.teacher[name].log_softmax(-1), logits.log_softmax(-1)
            self.divergence[name] = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        if self.with_entropy and name == "leaf":
            log_probs = logits.detach().log_softmax(-1)
            self.entropy = -(log_probs.exp() * log_probs).sum(-1).mean()

    def output(self, channel_weights: Tensor | None, data_weight: float = 0.0) -> FractalOutput:
        """Return the loss, from the mean of each level over its rows, which all weigh the same.

        Args:
            channel_weights: weights of the channels ``[C]``; without them all weigh the same.
            data_weight: with a teacher, the share of the level losses in the loss; the rest is that of the divergences.
        """

        def means(entries: dict[str, Tensor]) -> dict[str, Tensor]:
            if channel_weights is None:
                return {name: values.mean() for name, values in entries.items()}
            total = channel_weights.sum()
            return {name: (values * channel_weights).sum(-1).mean() / total for name, values in entries.items()}

        losses, divergences = means(self.nats), means(self.divergence)
        loss = torch.stack(list(losses.values())).sum()
        if divergences:
            loss = data_weight * loss + (1 - data_weight) * torch.stack(list(divergences.values())).sum()
        return FractalOutput(loss, losses, divergences, self.mask_fractions, self.entropy)

    def nats_per_canvas(self, batch: int) -> Tensor:
        """Return the weighted sum over all levels for each canvas, float32 ``[B]``."""
        return self.nats_per_column(batch).sum(1).float()

    def nats_per_column(self, batch: int) -> Tensor:
        """Return the weighted sum over all levels for each column of each canvas, float64 ``[B, W]``."""
        total = next(iter(self.weight.values())).new_zeros(batch * self.columns, dtype=torch.float64)
        for name, nats in self.nats.items():
            total = total.index_add(0, self.owner[name], nats.sum(-1).double() * self.weight[name].double())
        return total.unflatten(0, (batch, self.columns))
