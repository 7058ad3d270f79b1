"""Gumbel noise that is a function of seed, image, scale and position, not of the order of draws.

Dimensions: B images, n positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.keyed import chained, gumbel, mixed, signed


def gumbel_noise(seed: int, images: Tensor, scale: int, positions: Tensor, vocab: int) -> Tensor:
    """Draw standard Gumbel noise keyed by seed, image, scale and position.

    A value depends neither on the batch around it nor on earlier draws, see :func:`litscale.models.keyed.gumbel`. Two
    models that use the same key draw coupled tokens.

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
        key = chained(key, word)
    return gumbel(key, vocab)
