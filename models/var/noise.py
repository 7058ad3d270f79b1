"""Gumbel noise that is a function of what it is for, not of when it is drawn.

Suffixes: B images, n positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15


def gumbel_noise(seed: int, images: Tensor, scale: int, positions: Tensor, vocab: int) -> Tensor:
    """Standard Gumbel noise keyed by seed, image, scale and position.

    The key and the code's number go through the mixing function of SplitMix64 (Steele et al., OOPSLA 2014), so a value
    depends neither on the batch around it nor on earlier draws, and its bits are the same on every device (the
    logarithms may differ in the last place). ``argmax(logits + noise)`` draws from ``softmax(logits)``; two models that
    use the same key draw coupled tokens.

    Args:
        seed: any integer.
        images: number of each image, int64 ``[B]``.
        scale: number of the scale.
        positions: raster indices within the scale, int64 ``[n]``, on the device of ``images``.
        vocab: V.

    Returns:
        float32 ``[B, n, V]``, between -2.9 and 16.7.
    """
    key = _mixed(
        torch.full((1, 1), _signed(seed), dtype=torch.long, device=images.device)
    )  # so seed ^ image hides none
    for word in (images[:, None], scale, positions[None]):
        key = _mixed((key ^ word) + _signed(_STEP))
    codes = torch.arange(1, vocab + 1, device=images.device) * _signed(_STEP)
    bits = _mixed(key[..., None] + codes)
    bits >>= 40
    bits &= 2**24 - 1
    bits |= 1  # odd multiples of 2**-24 are exact in float32 and never 0 or 1
    uniform = bits.float().mul_(2**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser in wrapping 64-bit arithmetic, in place; shifts are made logical by masks."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= (x >> shift).bitwise_and_(2 ** (64 - shift) - 1)
        x *= _signed(factor)
    x ^= (x >> 31).bitwise_and_(2**33 - 1)
    return x


def _signed(x: int) -> int:
    """The int64 with the same low 64 bits."""
    return (x + 2**63) % 2**64 - 2**63
