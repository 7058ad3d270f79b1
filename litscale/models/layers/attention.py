"""Multi-head self-attention; what may be seen, positions and a cache are arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.layers.kv_cache import KVCache, RowKVCache, TokenCache, by_head
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
        self,
        width: int,
        heads: int,
        *,
        bias: bool = True,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the number of heads {heads}")
        self.heads = heads
        self.attn_dropout = attn_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)
        self.proj_drop = nn.Dropout(proj_dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rope: Tensor | None = None,
        cache: KVCache | RowKVCache | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Apply self-attention to tokens.

        Args:
            x: tokens ``[B, L, D]``; with a cache, the new tokens only.
            mask: bool ``[L, S]``, or ``[B, 1, L, S]``, for S tokens in all, True where a token of ``x`` sees one of
                them; without it each sees all.
            rope: table of :func:`litscale.models.layers.rope.rope_table` for the tokens of ``x``.
            cache: holds the earlier tokens, and ``x``'s afterwards.
            causal: each token sees itself and those before it; for sequences without earlier tokens, in place of a
                mask.

        Returns:
            As ``x``.
        """
        q, k, v = self.project(x, rope)
        if cache is not None:
            k, v = cache.append(k, v)
        dropout = self.attn_dropout if self.training else 0.0
        if k.shape[2] == 1 and not dropout:
            out = v  # a lone token can only attend to itself
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))

    def step(self, x: Tensor, rope: Tensor | None, cache: TokenCache) -> Tensor:
        """Attend from one token of each row to itself and to the cached ones, without dropout or gradients.

        Args:
            x: ``[B, D]``.
            rope: row of :func:`litscale.models.layers.rope.rope_of_projected`, ``[3 D / 2]``; None rotates nothing.
            cache: as in :meth:`forward`.

        Returns:
            As ``x``.
        """
        projected = self.qkv(x)
        q, k, v, mask = cache.append_token(projected if rope is None else rotate(projected, rope))
        # a lone token can only attend to itself
        out = v if k.shape[2] == 1 else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.flatten(1))

    def project(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens ``[B, L, D]`` to queries, keys and values ``[B, heads, L, d]``, the first two rotated."""
        q, k, v = by_head(self.qkv(x), self.heads)
        return (q, k, v) if rope is None else (rotate(q, rope), rotate(k, rope), v)


def causal_mask(new: int, seen: int, device: torch.device | None = None) -> Tensor:
    """Make the mask, bool ``[new, seen]``, of the last ``new`` of ``seen`` tokens: each sees no later token."""
    return torch.ones(new, seen, dtype=torch.bool, device=device).tril(seen - new)


@contextmanager
def recorded_attention(module: nn.Module) -> Iterator[list[Tensor]]:
    """Record the weights, float32 ``[B, heads, L, S]``, of all attention layers in ``module``, in order of use.

    After each pass of a layer inside the block, its weights are computed again from its inputs, as whole matrices.
    """
    weights: list[Tensor] = []

    def record(layer: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> None:
        assert isinstance(layer, Attention)
        weights.append(_weights(layer, *inputs, **options))

    layers = [layer for layer in module.modules() if isinstance(layer, Attention)]
    hooks = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def _weights(
    layer: Attention,
    x: Tensor,
    mask: Tensor | None = None,
    rope: Tensor | None = None,
    cache: KVCache | None = None,
    causal: bool = False,
) -> Tensor:
    """Compute the attention weights of a finished pass from its arguments; a cache already holds the keys of ``x``."""
    q, k, _ = layer.project(x, rope)
    if cache is not None:
        k = cache.held()[0]
    scores = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5
    if causal:
        mask = causal_mask(q.shape[2], k.shape[2], x.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)
