"""The weights of a tokenizer: read from files, held by the checkpoints of transformers, recognised by a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from litscale.models.state_dicts import fill
from litscale.models.var import VQVAE, fill_official
from litscale.storage.checkpoints import read_checkpoint

_STATISTICS = ("quantizer.hits", "quantizer.hit_updates")  # they change no token


def checksum(vqvae: VQVAE) -> str:
    """A hash of the tokenizer's weights; its statistics of usage play no part."""
    found = hashlib.sha256(str(vqvae.patch_nums).encode())
    for name, value in vqvae.state_dict().items():
        if name not in _STATISTICS:
            found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


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
