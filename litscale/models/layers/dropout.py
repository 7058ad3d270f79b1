"""Dropout of a transformer's residual branches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Dropout(nn.Dropout):
    """Dropout of tokens ``[B, L, D]``, channel by channel.

    Args:
        p: probability that a channel is dropped.
        shared: whether all tokens of a sequence lose the same channels, as in variational dropout (Gal and Ghahramani,
            arXiv 1512.05287). Attention averages over tokens, so channels that are dropped separately for each token
            are hardly missed if neighbouring tokens resemble each other.
    """

    def __init__(self, p: float = 0.0, shared: bool = False) -> None:
        super().__init__(p)
        self.shared = shared

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels in training, and scale the others by ``1 / (1 - p)``."""
        if not (self.shared and self.training and self.p):
            return super().forward(input)
        return input * F.dropout(input.new_ones(len(input), 1, input.shape[-1]), self.p)
