"""The weights of a tokenizer: loading from files, storage in the checkpoints of transformers, and their checksum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from litscale.models.state_dicts import fill
from litscale.models.var import VQVAE, fill_official
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.fingerprints import of_tensors

_STATISTICS = ("quantizer.hits", "quantizer.hit_updates")  # on which no token depends


def checksum(vqvae: VQVAE) -> str:
    """Return a SHA-256 of the scales and weights of a tokenizer, without its statistics of usage."""
    weights = {name: value for name, value in vqvae.state_dict().items() if name not in _STATISTICS}
    return of_tensors(weights, str(vqvae.patch_nums))


def load_tokenizer(vqvae: VQVAE, path: str) -> None:
    """Load the weights of a tokenizer from a checkpoint of :class:`lit_models.LitVQVAE`, or from an official file.

    A tokenizer may be used with other ``patch_nums`` than it was trained with, as the authors of VAR do for larger
    images. If the checkpoint shows this, a message names both.

    Args:
        vqvae: The tokenizer to fill.
        path: The file, which is read as weights and plain values only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or holds the weights of another tokenizer.
    """
    checkpoint = read_checkpoint(path, "tokenizer_checkpoint")
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"tokenizer_checkpoint {path} holds no state dict")
    try:
        if "state_dict" in checkpoint:
            prefix = "network."
            weights = checkpoint["state_dict"].items()
            fill(vqvae, {name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)})
        else:
            fill_official(vqvae, checkpoint)
    except ValueError as error:
        raise ValueError(
            f"tokenizer_checkpoint {path} belongs to another tokenizer ({error}): give network.vqvae the options "
            "of its training (patch_nums, vocab, dim, channels, multipliers, blocks, in_channels)"
        ) from error
    trained = checkpoint.get("patch_nums")
    if trained is not None and tuple(trained) != vqvae.patch_nums:
        rank_zero_info(
            f"tokenizer_checkpoint {path} was trained at patch_nums {list(trained)} and is used at "
            f"{list(vqvae.patch_nums)}; make patch_nums of the vqvae those of its training if that is not what you want"
        )


def packed_tokenizer(vqvae: VQVAE) -> dict[str, Any]:
    """Return a tokenizer as checkpoints of transformers hold it: ``state_dict``, ``patch_nums`` and ``checksum``."""
    state = {name: value.detach().cpu().clone() for name, value in vqvae.state_dict().items()}
    return {"state_dict": state, "patch_nums": list(vqvae.patch_nums), "checksum": checksum(vqvae)}


def unpack_tokenizer(vqvae: VQVAE, packed: Mapping[str, Any], source: str) -> None:
    """Load the weights of a tokenizer from an entry that :func:`packed_tokenizer` made.

    Args:
        vqvae: The tokenizer to fill.
        packed: The entry.
        source: Where the entry comes from, for messages.

    Raises:
        ValueError: the entry has another architecture, or is damaged.
    """
    try:
        sides = tuple(packed.get("patch_nums", vqvae.patch_nums))  # older checkpoints lack it
        if sides != vqvae.patch_nums:
            raise ValueError(f"patch_nums is {list(sides)} instead of {list(vqvae.patch_nums)}")
        fill(vqvae, packed["state_dict"])
    except ValueError as error:
        raise ValueError(
            f"the tokenizer in {source} has another architecture: {error}. Give vqvae the options of its training "
            "(config.yaml in its run folder)"
        ) from error
    if checksum(vqvae) != packed["checksum"]:
        raise ValueError(f"the tokenizer in {source} is damaged: its checksum differs; use another copy")
