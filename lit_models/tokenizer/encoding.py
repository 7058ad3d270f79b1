"""Canvases of symbols as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_models.token_metrics import by_scale
from litscale.models.codec import Codec
from litscale.models.var import VAR, VQVAE


def codec_of(vqvae: VQVAE, codec: str | None, velocity_bins: int) -> Codec:
    """What the tokenizer's channels stand for.

    Args:
        vqvae: the tokenizer.
        codec: name of a :class:`litscale.models.codec.Codec`; by default ``rgb`` for three channels, else ``gray``.
        velocity_bins: as there.

    Raises:
        ValueError: the codec is unknown, or has another number of planes than the tokenizer channels.
    """
    named = Codec(codec or ("rgb" if vqvae.in_channels == 3 else "gray"), velocity_bins)
    if named.planes != vqvae.in_channels:
        raise ValueError(
            f"codec {named.name} has {named.planes} planes, but the tokenizer's in_channels is {vqvae.in_channels}: "
            "make them equal"
        )
    return named


@torch.no_grad()
def encode(vqvae: VQVAE, codec: Codec, canvas: Tensor) -> list[Tensor]:
    """Tokens of symbols, int64 ``[B, n]`` for each scale, the same under any precision of the trainer.

    Args:
        vqvae: the tokenizer.
        codec: what its channels stand for.
        canvas: uint8 ``[B, C, H, W]``.
    """
    with torch.autocast(canvas.device.type, enabled=False):
        return vqvae.encode(codec.to_planes(canvas))


def tokens_of(model: VAR, codec: Codec, batch: Mapping[str, Any]) -> list[Tensor]:
    """Tokens of a batch, int64 ``[B, n]`` for each scale: those given, or those of its canvases."""
    if "tokens" not in batch:
        return encode(model.vqvae, codec, batch["canvas"])
    return by_scale(model, batch["tokens"].long())
