"""The leaf: a categorical distribution over the alphabet, channel after channel.

Suffixes: R rows (cells), C channels, A alphabet, K conditions, D their width, W width of the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.guidance import draw
from litscale.models.layers.blocks import Stack
from litscale.models.layers.kv_cache import KVCache


@dataclass(frozen=True)
class DrawOptions:
    """How symbols are drawn from logits, see :func:`litscale.models.fractal.guidance.draw`."""

    temperature: float = 1.0
    threshold: float = 1e-4
    greedy: bool = False
    generator: torch.Generator | None = None


class CategoricalHead(nn.Module):
    """Predicts the channels of a cell one after the other from its condition.

    Tokens are the condition and the channels so far; the state before a channel gives its logits through that channel's
    tied codebook. Of several conditions the first (the cell's own) is used, as in FractalGen. There is no dropout.

    Args:
        condition_width: D.
        width: W.
        blocks: number of transformer blocks.
        heads: attention heads.
        channels: C.
        alphabet: A.
        grad_checkpointing: recompute activations in the backward pass.
    """

    def __init__(
        self,
        condition_width: int,
        width: int,
        blocks: int,
        heads: int,
        channels: int,
        alphabet: int,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.cond_proj = nn.Linear(condition_width, width)
        self.codebook = nn.Parameter(torch.empty(channels, alphabet, width))
        self.in_norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = Stack(blocks, width, heads, "vit", grad_checkpointing=grad_checkpointing)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.bias = nn.Parameter(torch.zeros(channels, alphabet))

    def logits(self, symbols: Tensor, conditions: Tensor) -> Tensor:
        """Teacher-forced logits.

        Args:
            symbols: int64 ``[R, C]``.
            conditions: ``[R, K, D]``.

        Returns:
            ``[R, C, A]``; channel c's depend on the condition and channels before c.
        """
        tokens = self.cond_proj(conditions[:, :1])
        if self.channels > 1:
            channel = torch.arange(self.channels - 1, device=symbols.device)
            tokens = torch.cat([tokens, self.codebook[channel, symbols[:, :-1]].to(tokens.dtype)], dim=1)
        states = self.norm(self.blocks(self.in_norm(tokens), True))
        return torch.einsum("rcw,caw->rca", states, self.codebook.to(states.dtype)) + self.bias

    def forward(self, symbols: Tensor, conditions: Tensor, with_entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy in nats ``[R, C]`` of symbols ``[R, C]``, and the prediction's mean entropy where asked for."""
        logits = self.logits(symbols, conditions).float()
        nats = F.cross_entropy(logits.flatten(0, 1), symbols.flatten(), reduction="none").unflatten(0, symbols.shape)
        entropy = None
        if with_entropy:
            log_probs = logits.detach().log_softmax(-1)
            entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        return nats, entropy

    def sample(
        self,
        conditions: Tensor,
        options: DrawOptions,
        cfg: float | None = None,
        symbols: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw the channels of each cell.

        Args:
            conditions: ``[R, K, D]``, or ``[2 R, K, D]`` with the unconditional rows second where ``cfg`` is given.
            options: how to draw.
            cfg: guidance scale.
            symbols: int64 ``[R, C]``, read where ``known``.
            known: bool ``[R, C]``, channels that keep their symbol.

        Returns:
            Symbols int64 ``[R, C]`` and the log-probability of those drawn ``[R]``.
        """
        caches = [KVCache(self.channels) for _ in self.blocks]
        token = self.cond_proj(conditions[:, :1])
        total = conditions.new_zeros(len(conditions) // (1 if cfg is None else 2), dtype=torch.float32)
        drawn = []
        for c in range(self.channels):
            state = self.norm(self.blocks(self.in_norm(token), True, None, caches))[:, 0]
            logits = state @ self.codebook[c].t().to(state.dtype) + self.bias[c]
            symbol, log_prob = draw(
                logits, options.temperature, cfg, options.threshold, options.generator, options.greedy
            )
            if symbols is not None and known is not None:
                symbol = torch.where(known[:, c], symbols[:, c], symbol)
                log_prob = log_prob * ~known[:, c]
            drawn.append(symbol)
            total = total + log_prob
            if c + 1 < self.channels:
                both = symbol if cfg is None else symbol.repeat(2)
                token = self.codebook[c][both][:, None].to(token.dtype)
        return torch.stack(drawn, dim=1), total
