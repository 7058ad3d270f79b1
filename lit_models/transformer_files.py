"""Weights of transformers: loading from checkpoints and official files, and saving as a checkpoint of LitVAR."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from lit_models.tokenizer.weights import checksum, load_tokenizer, packed_tokenizer, unpack_tokenizer
from litscale.models.state_dicts import fill
from litscale.models.var import VAR, fill_official
from litscale.storage.checkpoints import read_checkpoint, stamp
from litscale.storage.files import write_atomically

LIT_VAR = "network."  # prefix of the weights of the transformer in checkpoints of LitVAR


def load_transformer(network: VAR, path: str, option: str, role: str) -> dict[str, Any] | None:
    """Load the weights of a transformer from a checkpoint of LitVAR or LitSDVAR, or from an official file.

    Args:
        network: The transformer to fill.
        path: The file, which is read as weights and plain values only.
        option: The option by which the file was given, for messages.
        role: ``draft`` or ``target``, the network to take from a checkpoint of LitSDVAR; ``network`` takes the draft.

    Returns:
        The tokenizer in the checkpoint, see :func:`packed_tokenizer`, or None for official files, which hold none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or holds the weights of another network.
    """
    checkpoint = read_checkpoint(path, option)
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{option} {path} holds no state dict")
    try:
        if "state_dict" not in checkpoint:
            fill_official(network, checkpoint)
            return None
        fill(network, _part(checkpoint["state_dict"], (LIT_VAR, "draft." if role == "network" else f"{role}.")))
    except ValueError as error:
        raise ValueError(
            f"{option} {path} belongs to another network ({error}): give {role} the options of its training "
            "(num_classes, depth, width, heads, mlp_ratio, shared_aln; patch_nums, vocab and dim of the vqvae)"
        ) from error
    return checkpoint.get("tokenizer")


def load_networks(networks: Mapping[str, VAR], files: Mapping[str, str | None]) -> None:
    """Load the weights of transformers and of the tokenizer that they share.

    Args:
        networks: The transformers by their roles, ``network`` alone, or ``target`` and ``draft``.
        files: ``tokenizer_checkpoint``, and the option ``<role>_checkpoint`` of each; null leaves weights as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file does not fit, or the transformers were trained with different tokenizers.
    """
    vqvae, source = next(iter(networks.values())).vqvae, None
    if (path := files["tokenizer_checkpoint"]) is not None:
        load_tokenizer(vqvae, path)
        source = f"tokenizer_checkpoint {path}"
    for role, network in networks.items():
        path = files[option := f"{role}_checkpoint"]
        packed = None if path is None else load_transformer(network, path, option, role)
        if packed is None:
            continue
        if source is None:
            source = f"{option} {path}"
            unpack_tokenizer(vqvae, packed, source)
        elif packed["checksum"] != checksum(vqvae):
            raise ValueError(
                f"different tokenizers: {option} {path} was not trained with that of {source}; all must "
                "be trained with the same tokenizer"
            )


def save_as_lit_var(path: str | Path, network: VAR, frequencies: Tensor) -> None:
    """Write a transformer as a checkpoint of LitVAR; an interruption leaves no incomplete file.

    Args:
        path: The file.
        network: The transformer, with its tokenizer.
        frequencies: How often each of V codes occurred at each of S scales in training, int64 ``[S, V]``.

    Raises:
        OSError: the file could not be written.
    """
    state = {f"{LIT_VAR}{name}": value.detach().cpu().clone() for name, value in network.state_dict().items()}
    checkpoint = {
        "state_dict": state | {"frequencies": frequencies.cpu().clone()},
        "tokenizer": packed_tokenizer(network.vqvae),
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    torch.save(stamp(checkpoint), data)
    write_atomically(path, data.getvalue())


def _part(state: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """Return the entries whose names have the first prefix that occurs, under their names without it."""
    for prefix in prefixes:
        if part := {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}:
            return part
    return {}
