"""Checks, at the start of a run, that data fit a tokenizer."""

from __future__ import annotations

from typing import Any

from datamodules.base import CanvasData, TokenData, offered
from lit_models.tokenizer.weights import checksum
from litscale.models.codec import Codec
from litscale.models.var import VQVAE


def token_metadata(vqvae: VQVAE) -> dict[str, Any]:
    """Return what a cache stores of its tokenizer: ``tokenizer`` (its checksum), ``patch_nums`` and ``vocab``."""
    return {"tokenizer": checksum(vqvae), "patch_nums": list(vqvae.patch_nums), "vocab": vqvae.vocab}


def check_cache(vqvae: VQVAE, data: object) -> None:
    """Check that a cache of tokens was written by a tokenizer; other data are not checked.

    Raises:
        ValueError: another tokenizer wrote it.
    """
    cache = offered(data, TokenData)
    if cache is None:
        return
    own, theirs = token_metadata(vqvae), cache.token_metadata
    if differing := [name for name, value in own.items() if theirs[name] != value]:
        described = "; ".join(f"{name} is {theirs[name]}, not {own[name]}" for name in differing)
        raise ValueError(
            f"the token cache {cache.folder} was written by another tokenizer ({described}): use the checkpoint of "
            "that one, or write a new cache with litscale predict"
        )


def check_canvas(vqvae: VQVAE, codec: Codec, data: object) -> None:
    """Check that a tokenizer takes the canvases of a data module.

    Args:
        vqvae: The tokenizer.
        codec: The meaning of its channels.
        data: The data module, which is not checked unless it offers `datamodules.base.CanvasData`.

    Raises:
        ValueError: channels, sides or alphabet differ.
    """
    canvases = offered(data, CanvasData)
    if canvases is None:
        return
    shape, alphabet = tuple(canvases.canvas_shape), canvases.alphabet
    wanted = (codec.channels, vqvae.image_size, vqvae.image_size)
    if (shape, alphabet) != (wanted, codec.alphabet):
        raise ValueError(
            f"the data has canvases of {list(shape)} with {alphabet} symbols, the tokenizer takes {list(wanted)} "
            f"with {codec.alphabet}: make the data's size and channels (of rolls pitch_range, window, encoding and "
            "velocity_bins) agree with the tokenizer's patch_nums and multipliers, and with codec and velocity_bins"
        )
