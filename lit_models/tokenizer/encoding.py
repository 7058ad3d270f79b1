"""From canvases of symbols to tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_models.batches import Batch
from lit_models.token_metrics import by_scale
from litscale.models.codec import Codec
from litscale.models.var import VAR, VQVAE


def codec_of(vqvae: VQVAE, codec: str | None, velocity_bins: int) -> Codec:
    """Return the meaning of the channels of a tokenizer.

    Args:
        vqvae: The tokenizer.
        codec: The name of a `litscale.models.codec.Codec`; by default ``rgb`` for three channels, otherwise ``gray``.
        velocity_bins: Number of velocity bins of the data, for velocity and onset_hold.

    Raises:
        ValueError: the codec is unknown, or the tokenizer has another number of channels than the codec has planes.
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
    """Encode symbols, with the same result under any ``trainer.precision``.

    Args:
        vqvae: The tokenizer.
        codec: The meaning of its channels.
        canvas: Symbols, uint8 ``[B, C, H, W]``.

    Returns:
        Tokens, int64 ``[B, n]`` for each scale.
    """
    with torch.autocast(canvas.device.type, enabled=False):
        return vqvae.encode(codec.to_planes(canvas))


def tokens_of(model: VAR, codec: Codec, batch: Batch) -> list[Tensor]:
    """Return the tokens of a batch, int64 ``[B, n]`` for each scale, and encode its canvases if it has none."""
    if "tokens" not in batch:
        return encode(model.vqvae, codec, batch["canvas"])
    return by_scale(model, batch["tokens"].long())


def count_tokens(batch: Batch, positions: int) -> dict[str, int]:
    """Count the ``samples`` and ``tokens`` of a batch, and the ``cells`` if it has canvases.

    Args:
        batch: canvases or the tokens of a cache.
        positions: tokens of a sample that a network is trained on.
    """
    count = len(batch["tokens"] if "tokens" in batch else batch["canvas"])
    cells = {"cells": batch["canvas"].numel()} if "canvas" in batch else {}
    return {"samples": count, "tokens": count * positions, **cells}


def labels_of(model: VAR, given: Tensor | None, count: int) -> Tensor:
    """Return the labels for a network, int64 ``[B]``.

    Args:
        model: The network.
        given: Classes, int64 ``[B]``, or None.
        count: B, if no classes are given.

    Returns:
        The given classes, or -1 for every image if none are given or the network has no classes.
    """
    if given is not None and model.num_classes:
        return given
    return torch.full((count if given is None else len(given),), -1, device=model.pos_emb.device)
