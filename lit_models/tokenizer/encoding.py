"""Canvases of symbols as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_models.token_metrics import by_scale
from litscale.models.var import VAR, VQVAE, Planes


def planes_of(vqvae: VQVAE, codec: str | None, velocity_bins: int) -> Planes:
    """What the tokenizer's channels stand for.

    Args:
        vqvae: the tokenizer.
        codec: as in :class:`litscale.models.var.Planes`; by default ``rgb`` for three channels, else ``gray``.
        velocity_bins: as there.

    Raises:
        ValueError: the codec is unknown, or has another number of planes than the tokenizer channels.
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
    """Tokens of symbols, int64 ``[B, n]`` for each scale, the same under any precision of the trainer.

    Args:
        vqvae: the tokenizer.
        planes: what its channels stand for.
        canvas: uint8 ``[B, C, H, W]``.
    """
    with torch.autocast(canvas.device.type, enabled=False):
        return vqvae.encode(planes.to_planes(canvas))


def tokens_of(model: VAR, planes: Planes, batch: Mapping[str, Any]) -> list[Tensor]:
    """Tokens of a batch, int64 ``[B, n]`` for each scale: those given, or those of its canvases."""
    if "tokens" not in batch:
        return encode(model.vqvae, planes, batch["canvas"])
    return by_scale(model, batch["tokens"].long())
