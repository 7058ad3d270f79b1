"""Attention in which a token sees its own scale and the scales before: computed in three ways with the same result.

Dimensions: B images, H heads, L tokens, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

Mask: TypeAlias = Tensor | tuple[int, ...] | BlockMask
"""Where tokens may attend: bool ``[L, tokens seen]``, the bounds ``(0, n_0, ..., L)`` of scales, or a block mask."""

ATTENTIONS = ("dense", "scales", "flex")
_LONG = 256  # tokens from which a call for each scale is faster on a CPU (benchmarks/attention_speed.py)


def check_attention(attention: str | None, dropout: float) -> None:
    """Check the name of an implementation of attention, and that it can drop weights if it has to.

    Raises:
        ValueError: the name is unknown, or FlexAttention is to drop weights.
    """
    if attention is not None and attention not in ATTENTIONS:
        raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)} or null, not {attention!r}")
    if attention == "flex" and dropout:
        raise ValueError(
            f"attention flex drops no weights: make attn_dropout 0, not {dropout}, or take dense or scales"
        )


def scale_causal(attention: str | None, may_attend: Tensor, bounds: tuple[int, ...]) -> Mask:
    """Return the mask by which a token sees its own and earlier scales, as the implementation of attention takes it.

    Args:
        attention: ``dense`` (a matrix), ``scales`` (a call for each scale, which needs no matrix and leaves out what is
            masked) or ``flex`` (FlexAttention); by default on a CPU ``scales`` for long sequences, else ``dense``.
        may_attend: bool ``[L, L]``.
        bounds: bounds of the scales, from 0 to L.

    Raises:
        ValueError: FlexAttention needs gradients on a CPU, where torch has no backward pass for it.
    """
    device = may_attend.device
    if attention is None:
        attention = "scales" if device.type == "cpu" and len(may_attend) >= _LONG else "dense"
    if attention == "dense":
        return may_attend
    if attention == "scales":
        return bounds
    if device.type == "cpu" and torch.is_grad_enabled():
        raise ValueError("attention flex has no backward pass on a CPU: take dense or scales, or null for the default")
    return _block_mask(bounds, device)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float, dropout: float = 0.0) -> Tensor:
    """Compute scaled dot-product attention.

    Args:
        q: ``[B, H, L, d]``.
        k: ``[B, H, tokens seen, d]``.
        v: as ``k``.
        mask: where tokens may attend; none for everywhere.
        scale: factor of the logits.
        dropout: dropout of the weights; FlexAttention ignores it.

    Returns:
        ``[B, H, L, d]``.
    """
    if isinstance(mask, BlockMask):
        return _flex(q.is_cuda and not torch.compiler.is_compiling())(q, k, v, block_mask=mask, scale=scale)
    if isinstance(mask, tuple):
        parts = [
            F.scaled_dot_product_attention(
                q[:, :, start:end], k[:, :, :end], v[:, :, :end], dropout_p=dropout, scale=scale
            )
            for start, end in pairwise(mask)
        ]
        return torch.cat(parts, dim=2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)


@lru_cache(maxsize=2)
def _flex(compiled: bool) -> Callable[..., Tensor]:
    """Return FlexAttention, compiled if ``compiled`` is true; compiled blocks compile it themselves."""
    return cast("Callable[..., Tensor]", torch.compile(flex_attention) if compiled else flex_attention)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # it is kept for training steps
def _block_mask(bounds: tuple[int, ...], device: torch.device) -> BlockMask:
    sizes = torch.tensor(bounds, device=device).diff()
    scale_of = torch.arange(len(sizes), device=device).repeat_interleave(sizes)

    def may_attend(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return scale_of[query] >= scale_of[key]

    return create_block_mask(may_attend, None, None, bounds[-1], bounds[-1], device=device)
