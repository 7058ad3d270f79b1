"""The tokens that the known cells of a canvas determine."""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.codec import Codec
from litscale.models.var import VQVAE, token_masks


@torch.no_grad()
def known_tokens(vqvae: VQVAE, codec: Codec, canvas: Tensor, known: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tokens that are determined by known cells.

    The unknown cells are filled with the mean of the known ones, and the result is encoded. A token counts as known if
    at least half of its cells are.

    Args:
        vqvae: The tokenizer.
        codec: The meaning of its channels.
        canvas: Symbols, uint8 ``[B, C, H, W]``, which are read only where they are known.
        known: bool ``[B, C, H, W]``; a pixel is known if all its channels are.

    Returns:
        Tokens, int64, and whether they are known, bool: ``[B, n]`` for each scale, with its number of tokens n.
    """
    pixels = known.all(1)  # [B, H, W]
    inside = pixels[:, None]
    values = codec.to_planes(canvas)
    mean = (values * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    with torch.autocast(canvas.device.type, enabled=False):
        tokens = vqvae.encode(torch.where(inside, values, mean))
    return tokens, token_masks(pixels, vqvae.patch_nums)
