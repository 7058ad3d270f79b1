"""``model.safetensors`` of an exported model: a checkpoint's weights and plain values, in a file that holds no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
ENDING = Path(WEIGHTS).suffix
CONFIG = "config.yaml"
SHIPPED = Path(__file__).parents[1] / "pretrained"  # exported models that come with litscale
OURS = "litscale"  # key of our entry in the file's metadata


def exported_folder(name: str | os.PathLike[str]) -> Path:
    """Return the folder of an exported model, after a check that it is complete.

    Args:
        name: a folder that ``litscale export`` wrote, or the name of a model that comes with litscale.

    Raises:
        FileNotFoundError: there is no such model, or the folder lacks its config or its weights.
    """
    shipped = sorted(path.name for path in SHIPPED.glob("*/"))
    # a folder that is no model does not hide the model of that name
    folder = SHIPPED / name if str(name) in shipped and not (Path(name) / CONFIG).is_file() else Path(name)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name}: no such folder; give one that litscale export wrote, or a model that comes with litscale "
            f"({', '.join(shipped) or 'none'})"
        )
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}: give a folder that litscale export wrote")
    return folder


def write_exported(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint as safetensors.

    Entries of ``state_dict`` keep their names; those of other mappings of tensors are called after their place, such as
    ``tokenizer/state_dict/...``. What is no tensor goes to the metadata as JSON.

    Args:
        path: the file; it appears while it is written.
        checkpoint: ``state_dict``, and values and mappings that JSON has, with mappings of tensors among them.

    Raises:
        TypeError: a value is neither a tensor in a mapping of tensors nor one that JSON has.
        OSError: the file could not be written.
    """
    tensors: dict[str, Tensor] = dict(checkpoint["state_dict"])
    places: list[str] = []
    rest = {name: value for name, value in checkpoint.items() if name != "state_dict"}
    plain = _without_tensors("", rest, tensors, places)
    # Copies, as the format has no tensors that share memory or are views.
    owned = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    ours = json.dumps({"values": plain, "places": places})
    path.touch()
    mode = path.stat().st_mode  # as of any new file; safetensors lets only its owner read what it writes
    try:
        save_file(owned, path, metadata={"format": "pt", OURS: ours})
    except safetensors.SafetensorError as error:  # such as that of a full disk
        raise OSError(f"{path} could not be written: {error}") from error
    path.chmod(mode)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_exported(path: str | Path) -> dict[str, Any]:
    """Read a file of `write_exported`, in the order of `by_name`.

    Raises:
        FileNotFoundError: there is no such file.
        Exception: it is damaged, or no file of `write_exported`; `litscale.storage.checkpoints.read_checkpoint` makes
            that an error that names the file.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        metadata = file.metadata() or {}
    if OURS not in metadata:
        raise ValueError("it is no model.safetensors of litscale export")
    ours = json.loads(metadata[OURS])
    checkpoint: dict[str, Any] = ours["values"]
    for place in ours["places"]:
        *outer, last = place.split("/")
        mapping = checkpoint
        for name in outer:
            mapping = mapping[name]
        inside = [name for name in tensors if name.startswith(f"{place}/")]
        mapping[last] = {name.removeprefix(f"{place}/"): tensors.pop(name) for name in inside}
    return by_name({"state_dict": tensors} | checkpoint)


def by_name(value: Any) -> Any:
    """Sort all mappings in a value by their keys, because files do not keep the order and checksums depend on it."""
    return {name: by_name(value[name]) for name in sorted(value)} if isinstance(value, Mapping) else value


def _without_tensors(place: str, value: Any, tensors: dict[str, Tensor], places: list[str]) -> Any:
    """Return a value without its mappings of tensors, which are moved to ``tensors`` and named in ``places``."""
    if not isinstance(value, Mapping):
        return value
    if value and all(isinstance(entry, Tensor) for entry in value.values()):
        places.append(place)
        tensors |= {f"{place}/{name}": tensor for name, tensor in value.items()}
        return {}
    return {
        name: _without_tensors(f"{place}/{name}".lstrip("/"), entry, tensors, places) for name, entry in value.items()
    }
