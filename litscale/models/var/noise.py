"""Gumbel noise that is a function of seed, image, scale and position, not of the order of draws.

Dimensions: B images, n positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.keyed import STEP, mixed, signed


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
    key = mixed(torch.full((1, 1), signed(seed), dtype=torch.long, device=images.device))  # so seed ^ image hides none
    for word in (images[:, None], scale, positions[None]):
        key = mixed((key ^ word) + signed(STEP))
    codes = torch.arange(1, vocab + 1, device=images.device) * signed(STEP)
    bits = mixed(key[..., None] + codes)
    bits >>= 40
    bits &= 2**24 - 1
    bits |= 1  # odd multiples of 2**-24 are exact in float32 and never 0 or 1
    uniform = bits.float().mul_(2**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()
