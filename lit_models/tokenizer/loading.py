"""The tokenizer as the modules use it: which it is, where its weights come from, what it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.base import CanvasData, TokenData, class_count, offered
from lit_models.token_metrics import by_scale
from litscale.models.state_dicts import fill
from litscale.models.var import VAR, VQVAE, Planes, fill_official
from litscale.storage.checkpoints import read_checkpoint

_STATISTICS = ("quantizer.hits", "quantizer.hit_updates")  # they change no token


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


def checksum(vqvae: VQVAE) -> str:
    """A hash of the tokenizer's weights; its statistics of usage play no part."""
    found = hashlib.sha256(str(vqvae.patch_nums).encode())
    for name, value in vqvae.state_dict().items():
        if name not in _STATISTICS:
            found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


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


def load_tokenizer(vqvae: VQVAE, path: str) -> None:
    """Fill a tokenizer from a checkpoint of :class:`lit_models.LitVQVAE`, or from an official file.

    A tokenizer may be used at other ``patch_nums`` than it was trained at, as VAR's authors do for larger images; where
    the checkpoint says that it is so, a note names both.

    Args:
        vqvae: the tokenizer.
        path: the file, read with weights only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is of another tokenizer.
    """
    checkpoint = read_checkpoint(path, "tokenizer_checkpoint")
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"tokenizer_checkpoint {path} holds no state dict")
    try:
        if "state_dict" in checkpoint:
            start = "network."
            weights = checkpoint["state_dict"].items()
            fill(vqvae, {name.removeprefix(start): value for name, value in weights if name.startswith(start)})
        else:
            fill_official(vqvae, checkpoint)
    except ValueError as error:
        raise ValueError(
            f"tokenizer_checkpoint {path} is of another tokenizer ({error}): make network.vqvae the one that it was "
            "trained as (patch_nums, vocab, dim, channels, multipliers, blocks, in_channels)"
        ) from error
    trained = checkpoint.get("patch_nums")
    if trained is not None and tuple(trained) != vqvae.patch_nums:
        rank_zero_info(
            f"tokenizer_checkpoint {path} was trained at patch_nums {list(trained)} and is used at "
            f"{list(vqvae.patch_nums)}; make patch_nums of the vqvae those of its training if that is not what you want"
        )


def check_canvas(vqvae: VQVAE, planes: Planes, data: object) -> None:
    """Compare a data module's canvases with what a tokenizer takes.

    Args:
        vqvae: the tokenizer.
        planes: what its channels stand for.
        data: is not asked unless it offers `datamodules.base.CanvasData`.

    Raises:
        ValueError: channels, sides or alphabet differ.
    """
    canvases = offered(data, CanvasData)
    if canvases is None:
        return
    shape, alphabet = tuple(canvases.canvas_shape), canvases.alphabet
    wanted = (planes.channels, vqvae.image_size, vqvae.image_size)
    if (shape, alphabet) != (wanted, planes.alphabet):
        raise ValueError(
            f"the data has canvases of {list(shape)} with {alphabet} symbols, the tokenizer takes {list(wanted)} "
            f"with {planes.alphabet}: make the data's size and channels (of rolls pitch_range, window, encoding and "
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


def tokens_of(model: VAR, planes: Planes, batch: Mapping[str, Any]) -> list[Tensor]:
    """Tokens of a batch, int64 ``[B, n]`` for each scale: those given, or those of its canvases."""
    if "tokens" not in batch:
        return encode(model.vqvae, planes, batch["canvas"])
    return by_scale(model, batch["tokens"].long())


def packed_tokenizer(vqvae: VQVAE) -> dict[str, Any]:
    """A tokenizer as checkpoints hold it: ``state_dict``, ``patch_nums`` and ``checksum``."""
    state = {name: value.detach().cpu().clone() for name, value in vqvae.state_dict().items()}
    return {"state_dict": state, "patch_nums": list(vqvae.patch_nums), "checksum": checksum(vqvae)}


def unpack_tokenizer(vqvae: VQVAE, packed: Mapping[str, Any], source: str) -> None:
    """Fill a tokenizer with a packed one.

    Raises:
        ValueError: it is of another architecture or damaged; ``source`` says where it came from.
    """
    try:
        sides = tuple(packed.get("patch_nums", vqvae.patch_nums))  # older checkpoints do not say
        if sides != vqvae.patch_nums:
            raise ValueError(f"patch_nums is {list(sides)} instead of {list(vqvae.patch_nums)}")
        fill(vqvae, packed["state_dict"])
    except ValueError as error:
        raise ValueError(
            f"the tokenizer in {source} is of another architecture: {error}. Make vqvae the one that it was trained as "
            "(config.yaml in its run folder)"
        ) from error
    if checksum(vqvae) != packed["checksum"]:
        raise ValueError(f"the tokenizer in {source} is damaged: its checksum differs; use another copy")
