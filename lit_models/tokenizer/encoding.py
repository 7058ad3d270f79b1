"""From canvases of symbols to tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_models.base import Batch
from lit_models.token_metrics import by_scale
from litscale.models.var import VAR, VQVAE, Planes


def planes_of(vqvae: VQVAE, codec: str | None, velocity_bins: int) -> Planes:
    """Return the meaning of the channels of a tokenizer.

    Args:
        vqvae: The tokenizer.
        codec: As in :class:`litscale.models.var.Planes`; by default ``rgb`` for three channels, otherwise ``gray``.
        velocity_bins: As in :class:`litscale.models.var.Planes`.

    Raises:
        ValueError: the codec is unknown, or it and the tokenizer differ in their number of channels.
    """
    planes = Planes(codec or ("rgb" if vqvae.in_channels == 3 else "gray"), velocity_bins)
    if planes.count != vqvae.in_channels:
        raise ValueError(
            f"codec {planes.codec} has {planes.count} planes, but the tokenizer's in_channels is {vqvae.in_channels}: "
            "make them equal"
        )
    return planes


@torch.no_grad()
def encode(vqvae: VQVAE, planes: Planes, canvas: Tensor) -> list[Tensor]:
    """Encode symbols, with the same result under any ``trainer.precision``.

    Args:
        vqvae: The tokenizer.
        planes: The meaning of its channels.
        canvas: Symbols, uint8 ``[B, C, H, W]``.

    Returns:
        Tokens, int64 ``[B, n]`` for each scale.
    """
    with torch.autocast(canvas.device.type, enabled=False):
        return vqvae.encode(planes.to_planes(canvas))


def tokens_of(model: VAR, planes: Planes, batch: Batch) -> list[Tensor]:
    """Return the tokens of a batch, int64 ``[B, n]`` for each scale, and encode its canvases if it has none."""
    if "tokens" not in batch:
        return encode(model.vqvae, planes, batch["canvas"])
    return by_scale(model, batch["tokens"].long())
