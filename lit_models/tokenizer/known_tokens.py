"""Which tokens a known part of a picture forces."""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.codec import Codec
from litscale.models.var import VQVAE, token_masks


@torch.no_grad()
def known_tokens(vqvae: VQVAE, codec: Codec, canvas: Tensor, known: Tensor) -> dict[str, list[Tensor]]:
    """What known cells force.

    Tokens of which at least half the cells are known are those of the known picture, in which the mean of its known
    cells fills the rest.

    Args:
        vqvae: the tokenizer.
        codec: what its channels stand for.
        canvas: symbols, uint8 ``[B, C, H, W]``, read where they are known.
        known: bool ``[B, C, H, W]``; a pixel is known if all its channels are.

    Returns:
        ``tokens`` int64 and ``known`` bool, ``[B, n]`` for each scale.
    """
    pixels = known.all(1)  # [B, H, W]
    inside = pixels[:, None]
    values = codec.to_planes(canvas)
    mean = (values * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    with torch.autocast(canvas.device.type, enabled=False):
        tokens = vqvae.encode(torch.where(inside, values, mean))
    return {"tokens": tokens, "known": token_masks(pixels, vqvae.patch_nums)}
