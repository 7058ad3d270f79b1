"""Whether data fits a tokenizer and its transformers: checks at the start of a run."""

from __future__ import annotations

from typing import Any

from datamodules.base import CanvasData, TokenData, class_count, offered
from lit_models.tokenizer.weights import checksum
from litscale.models.codec import Codec
from litscale.models.var import VQVAE


def token_facts(vqvae: VQVAE) -> dict[str, Any]:
    """What a cache must say of its tokens: ``tokenizer`` (the checksum), ``patch_nums`` and ``vocab``."""
    return {"tokenizer": checksum(vqvae), "patch_nums": list(vqvae.patch_nums), "vocab": vqvae.vocab}


def check_cache(vqvae: VQVAE, data: object) -> None:
    """Compare the tokenizer with the one that the data's tokens are of, if it is a cache of tokens.

    Raises:
        ValueError: they are of another tokenizer.
    """
    cache = offered(data, TokenData)
    if cache is None:
        return
    own, facts = token_facts(vqvae), cache.token_facts
    if differing := [name for name, value in own.items() if facts[name] != value]:
        described = "; ".join(f"{name} is {facts[name]}, not {own[name]}" for name in differing)
        raise ValueError(
            f"the token cache {cache.folder} was written by another tokenizer ({described}): use the checkpoint of "
            "that one, or write a new cache with litscale predict"
        )


def check_canvas(vqvae: VQVAE, codec: Codec, data: object) -> None:
    """Compare a data module's canvases with what a tokenizer takes.

    Args:
        vqvae: the tokenizer.
        codec: what its channels stand for.
        data: is not asked unless it offers `datamodules.base.CanvasData`.

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


def check_classes(num_classes: int, data: object) -> None:
    """Compare a data module's classes with those of networks, which may know none.

    Raises:
        ValueError: the data has more.
    """
    classes = class_count(data)
    if num_classes and classes > num_classes:
        raise ValueError(
            f"the data has {classes} classes, the networks {num_classes}: its labels are out of range; make "
            "num_classes of the networks that of the data, or 0 for networks without classes"
        )
