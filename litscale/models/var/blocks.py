"""Transformer block of VAR: attention with optional L2 norm, modulated by the class (AdaLN).

Dimensions: B images, L tokens, D width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.layers.blocks import GeluMLP
from litscale.models.layers.kv_cache import KVCache
from litscale.models.var.pruning import PrunedPass
from litscale.models.var.scale_attention import Mask, attend


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Apply layer norm without affine part to ``[B, L, D]``, multiply by ``1 + scale`` and add ``shift``.

    Scale and shift are ``[B, 1, D]`` (AdaLN, arXiv 2212.09748).
    """
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


@dataclass(frozen=True)
class BlockConfig:
    """The options that all blocks of a network share.

    Args:
        width: channels D.
        heads: attention heads H, a divisor of the width.
        mlp_ratio: hidden width of the feed-forward in units of D.
        shared_aln: each block adds a table of its own to a modulation that all share, instead of computing one.
        attn_l2_norm: normalise queries and keys, and scale queries by a learned factor per head (at most 100) instead
            of the fixed ``0.25 / sqrt(D / H)``.
        attn_dropout: dropout of the attention weights.
        dropout: dropout after attention and within the feed-forward.

    Raises:
        ValueError: the heads do not divide the width.
    """

    width: int
    heads: int
    _: KW_ONLY
    mlp_ratio: float = 4.0
    shared_aln: bool = False
    attn_l2_norm: bool = True
    attn_dropout: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of the number of heads {self.heads}")


class VARAttention(nn.Module):
    """Self-attention with biases on queries and values only."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.heads = heads
        self.attn_dropout = config.attn_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.log_scale = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0))) if config.attn_l2_norm else None
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Mask | None = None, cache: KVCache | None = None) -> Tensor:
        """Apply self-attention to tokens.

        Args:
            x: ``[B, L, D]``; with a cache, the new tokens only.
            mask: where a token may attend, see :data:`litscale.models.var.scale_attention.Mask`; none for everywhere.
            cache: holds the earlier tokens, and ``x``'s afterwards.

        Returns:
            ``[B, L, D]``.
        """
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, H, L, D / H]
        scale = 0.25 / q.shape[-1] ** 0.5
        if self.log_scale is not None:
            scale = 1.0
            factor = self.log_scale.float().clamp(max=math.log(100.0)).exp()
            q = (F.normalize(q.float(), dim=-1) * factor).to(v.dtype)
            k = F.normalize(k.float(), dim=-1).to(v.dtype)
        if cache is not None:
            k, v = cache.append(k, v)
        dropout = self.attn_dropout if self.training else 0.0
        out = attend(q, k, v, mask, scale, dropout=dropout)
        return self.drop(self.proj(out.transpose(1, 2).flatten(2)))


class VARBlock(nn.Module):
    """Attention and feed-forward, each normalised, modulated and gated by the class.

    Args:
        config: the options that it shares with the other blocks.
        drop_path: probability that a training image skips a branch (stochastic depth, arXiv 1603.09382).
    """

    def __init__(self, config: BlockConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        width = config.width
        self.drop_path = drop_path
        self.attn = VARAttention(config)
        self.mlp = GeluMLP(width, config.mlp_ratio, config.dropout, approximate="tanh")
        self.modulation = None if config.shared_aln else nn.Linear(width, 6 * width)
        self.modulation_table = nn.Parameter(torch.zeros(1, 1, 6, width)) if config.shared_aln else None

    def forward(self, x: Tensor, condition: Tensor, mask: Mask | None) -> Tensor:
        """Map ``[B, L, D]`` to ``[B, L, D]`` in training; see :meth:`modulate` and :meth:`run`."""
        return self.run(x, self.modulate(condition), mask)

    def modulate(self, condition: Tensor) -> Tensor:
        """Compute the modulation of this block by the class.

        Args:
            condition: class embedding ``[B, D]``, or the shared modulation ``[B, 1, 6, D]``.

        Returns:
            ``[B, 1, 6, D]``: gates of attention and feed-forward, their scales, their shifts.
        """
        if self.modulation_table is not None:
            return condition + self.modulation_table
        assert self.modulation is not None
        return self.modulation(F.silu(condition)).unflatten(-1, (1, 6, -1))

    def run(
        self,
        x: Tensor,
        modulation: Tensor,
        mask: Mask | None = None,
        cache: KVCache | None = None,
        pruned: PrunedPass | None = None,
    ) -> Tensor:
        """Map ``[B, L, D]`` to ``[B, L, D]``.

        Args:
            x: tokens.
            modulation: result of :meth:`modulate`.
            mask: as in :class:`VARAttention`.
            cache: as in :class:`VARAttention`.
            pruned: chooses the tokens that are computed, to which mask and cache belong; none computes all.
        """
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = modulation.unbind(2)

        def attended(x: Tensor) -> Tensor:
            return self._branch(gate_1 * self.attn(modulated_norm(x, scale_1, shift_1), mask, cache))

        def fed(x: Tensor) -> Tensor:
            return self._branch(gate_2 * self.mlp(modulated_norm(x, scale_2, shift_2)))

        if pruned is None:
            x = x + attended(x)
            return x + fed(x)
        x = x + pruned.branch((self, "attention"), x, attended)
        return x + pruned.branch((self, "feed-forward"), x, fed)

    def _branch(self, x: Tensor) -> Tensor:
        if not (self.training and self.drop_path):
            return x
        keep = 1 - self.drop_path
        return x * (torch.rand(len(x), 1, 1, device=x.device, dtype=torch.float32) < keep) / keep
