"""Modules of runs, for use from Python."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser

from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.exported import CONFIG, WEIGHTS, exported_folder
from litscale.storage.run_folders import CHECKPOINTS, checkpoint_in


def load_run(folder: str | PathLike[str], checkpoint: str | PathLike[str] = "best") -> LightningModule:
    """Load the module of a run as it was trained, with its generation options and weights.

    The module is built from the ``config.yaml`` of the run folder, as the command line builds it, without a trainer and
    without data. Its weights are those that ``litscale predict`` would use; where a run averages its weights, these are
    the averaged ones.

    Args:
        folder: the run folder, ``trainer.default_root_dir`` of its ``litscale fit``.
        checkpoint: ``best`` or ``last``, or the path of another checkpoint of the same model.

    Returns:
        The module in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: the folder has no config.yaml, or there is no such checkpoint.
        ValueError: the config cannot be read or names a class that cannot be imported, or the checkpoint cannot be
            read or has another architecture.
    """
    # 1. find and read both files, before anything is built
    config = Path(folder) / CONFIG
    options = read_config(config)["model"]
    path = checkpoint_path(Path(folder), checkpoint)
    content = read_weights(path)

    # 2. build the module
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    try:
        parsed = parser.parse_object({"model": options})
    except ArgumentError as error:
        reason, *_ = str(error).split("\n  Given value")  # the whole section would follow
        raise ValueError(
            f"{config}: {reason}\nClasses of your own must be importable: put their folder into PYTHONPATH"
        ) from error
    module: LightningModule = parser.instantiate_classes(parsed).model

    # 3. fill it
    try:
        fill(module, content)
    except ValueError as error:
        raise ValueError(f"{path} does not fit the model of {config}: {error}") from error
    return module.eval()


def read_weights(path: str | Path, option: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint, or the weights of an export, for `fill`.

    Args:
        path: the file.
        option: what the user calls it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds no weights of a module.
    """
    content = read_checkpoint(path, option)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(
            f"{option} {path} is not a Lightning checkpoint: it has no state_dict. Give published weights as "
            "--model.official_checkpoint"
        )
    return content


def fill(module: LightningModule, content: dict[str, Any]) -> None:
    """Give a module the weights of a checkpoint, with the hook that a trainer would call.

    Raises:
        ValueError: they do not fit.
    """
    try:
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def load_exported(folder: str | PathLike[str]) -> LightningModule:
    """Load the module of a folder that ``litscale export`` wrote, or that comes with litscale, as `load_run` does.

    Raises:
        FileNotFoundError: there is no such model, or the folder lacks its config or its weights.
        ValueError: as for `load_run`.
    """
    found = exported_folder(folder)
    return load_run(found, found / WEIGHTS)


def kept_checkpoint(folder: Path) -> str:
    """Return ``best`` if the run keeps a best checkpoint, otherwise ``last``."""
    return "best" if checkpoint_in(folder, "best").is_file() else "last"


def weights_file(path: str) -> Path:
    """Return the checkpoint that a run folder stands for, its best or else its last one; or the given file itself.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
    """
    given = Path(path)
    return checkpoint_path(given, kept_checkpoint(given)) if given.is_dir() else given


def read_config(config: Path) -> dict[str, Any]:
    """Read the config of a run, which has a section ``model``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or has no section ``model``.
    """
    try:
        content = yaml.safe_load(config.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{config}: no such file; give the folder of a run, the trainer.default_root_dir of its litscale fit"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{config} is not the config of a run: it has no `model`")
    return content


def checkpoint_path(folder: Path, checkpoint: str | PathLike[str]) -> Path:
    """Return the checkpoint file of a run folder for ``best`` or ``last``, or the one at the given path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = checkpoint_in(folder, str(checkpoint)) if checkpoint in ("best", "last") else Path(checkpoint)
    if path.is_file():
        return path
    if checkpoint == "best" and checkpoint_in(folder, "last").is_file():
        raise FileNotFoundError(no_best(folder, 'checkpoint="last"'))
    raise FileNotFoundError(f"{path}: no such file; {folder} has {', '.join(_held(folder)) or 'no checkpoints'}")


def no_best(folder: Path, last: str) -> str:
    """Return what to say of a run folder that has ``last.ckpt`` but no ``best.ckpt``.

    Args:
        folder: the run folder.
        last: how the reader can ask for ``last.ckpt`` instead.
    """
    return (
        f"{folder} has no {CHECKPOINTS}/best.ckpt, only {', '.join(_held(folder))}: give {last} (best.ckpt is kept by "
        "runs that have a checkpoints.monitor, from their first validation on)"
    )


def _held(folder: Path) -> list[str]:
    """Return the names of the checkpoints of a run folder."""
    return sorted(each.name for each in (folder / CHECKPOINTS).glob("[!.]*.ckpt"))
