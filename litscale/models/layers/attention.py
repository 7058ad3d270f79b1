"""Multi-head self-attention with optional rotary positions, causality, cache and a recorder of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.layers.kv_cache import KVCache
from litscale.models.layers.rope import rotate


class Attention(nn.Module):
    """Self-attention over a sequence by scaled dot products.

    Args:
        width: channels ``D`` of the tokens.
        heads: number of heads; it must divide the width.
        bias: whether the projections have biases.
        attn_dropout: dropout of the attention weights.
        proj_dropout: dropout of the output.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self, width: int, heads: int, bias: bool = True, attn_dropout: float = 0.0, proj_dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the number of heads {heads}")
        self.heads = heads
        self.attn_dropout = attn_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)
        self.proj_drop = nn.Dropout(proj_dropout)
        self.recorder: Callable[[Tensor], None] | None = None

    def forward(
        self, x: Tensor, causal: bool = False, rope: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: tokens ``[B, L, D]``; with a cache, the new tokens only.
            causal: each token sees itself and those before it.
            rope: table of :func:`litscale.models.layers.rope.rope_table` for the tokens of ``x``.
            cache: holds the earlier tokens, and ``x``'s afterwards.

        Returns:
            ``[B, L, D]``.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, L, d]
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.append(k, v)
        new, seen = q.shape[2], k.shape[2]
        mask = None
        if causal and 1 < new < seen:
            mask = torch.ones(new, seen, dtype=torch.bool, device=x.device).tril(seen - new)
        if self.recorder is not None:
            scores = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5
            if causal and new > 1:
                allowed = torch.ones(new, seen, dtype=torch.bool, device=x.device).tril(seen - new)
                scores = scores.masked_fill(~allowed, float("-inf"))
            self.recorder(scores.softmax(-1))
        dropout = self.attn_dropout if self.training else 0.0
        if seen == 1 and not dropout:
            out = v  # a lone token can only attend to itself
        else:
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal and mask is None and new > 1
            )
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


@contextmanager
def recorded_attention(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights ``[B, heads, L, L]`` of every attention below ``module``, in order of use."""
    layers = [layer for layer in module.modules() if isinstance(layer, Attention)]
    weights: list[Tensor] = []
    for layer in layers:
        layer.recorder = weights.append
    try:
        yield weights
    finally:
        for layer in layers:
            layer.recorder = None
