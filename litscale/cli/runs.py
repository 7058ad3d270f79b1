"""Checkpoints of the command line: the file that ``--ckpt_path`` means, and where a requeued job resumes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.fabric.strategies.model_parallel import _is_sharded_checkpoint
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_models.base import LitModule
from lit_models.runs import fill, no_best, read_weights, weights_file
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.exported import ENDING
from litscale.storage.run_folders import CHECKPOINTS, checkpoint_in

WORDS = ("last", "best")
AUTO = "auto"  # of fit: where the run left off, if there is one
HPC = "hpc_ckpt_*.ckpt"  # what Lightning saves as it requeues a job of SLURM


class ExportedCheckpointIO(TorchCheckpointIO):
    """Reads the ``model.safetensors`` of ``litscale export`` where a trainer is given a checkpoint."""

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read exported weights, or a checkpoint of ``torch.save`` as Lightning does."""
        if Path(path).suffix == ENDING:
            return read_checkpoint(path)
        return super().load_checkpoint(path, *args, **kwargs)


def find_checkpoint(given: str | None, folders: Iterable[Path]) -> str | None:
    """Find and check the file that ``--ckpt_path`` means.

    Args:
        given: a path, or ``last`` or ``best`` for that checkpoint of a run.
        folders: run folders that are searched for ``last`` and ``best``, in order.

    Returns:
        The path, or None if none is given.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is a folder, cannot be read with weights only, or holds no state dict.
    """
    if given is None:
        return None
    if given in WORDS:
        folders = list(dict.fromkeys(folders))
        paths = [path for folder in folders if (path := checkpoint_in(folder, given)).is_file()]
        if not paths:
            for folder in folders if given == "best" else ():
                if checkpoint_in(folder, "last").is_file():
                    raise FileNotFoundError(f"--ckpt_path best: {no_best(folder, '--ckpt_path last')}")
            raise FileNotFoundError(
                f"--ckpt_path {given}: there is no {CHECKPOINTS}/{given}.ckpt in {' or '.join(map(str, folders))}; "
                "give the run's folder as --trainer.default_root_dir, or the path of a checkpoint"
            )
        given = str(paths[0])
    if not Path(given).exists():
        raise FileNotFoundError(
            f"--ckpt_path {given}: no such file; give the path of a checkpoint, last or best, or auto to fit"
        )
    check_checkpoint(given)
    return given


def check_checkpoint(path: str | Path) -> None:
    """Refuse a checkpoint that is missing, damaged or would run code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the checkpoint is a folder, cannot be read with weights only, or holds no state dict.
    """
    folder = Path(path)
    if folder.is_dir() and not _is_sharded_checkpoint(folder):
        inside = [*folder.glob("*.ckpt"), *folder.glob(f"{CHECKPOINTS}/*.ckpt")]
        example = f"e.g. {sorted(inside)[-1]}" if inside else "which there is none of in it"
        raise ValueError(f"--ckpt_path {path} is a folder: give the file of a checkpoint, {example}")
    if folder.is_dir():
        return
    read_weights(path, "--ckpt_path")


def start_from(model: LightningModule, weights: str) -> None:
    """Give the model of a new training the weights of ``--weights``.

    Args:
        model: the model.
        weights: a run folder, or a file of weights.

    Raises:
        FileNotFoundError: there is no such file, or no checkpoint in the run folder.
        ValueError: the file cannot be read, or does not fit the model.
    """
    content = read_weights(weights_file(weights), "--weights")
    try:
        fill(model, content)
    except ValueError as error:
        raise ValueError(f"--weights {weights} does not fit the model: {error}") from error


def check_weights(command: str, model: LightningModule, ckpt_path: str | None, untrained: bool) -> None:
    """Refuse to evaluate random weights, unless the user has asked for them.

    Args:
        command: the words after ``litscale``, for the message.
        model: the model, which may load weights of its own.
        ckpt_path: the given checkpoint, if any.
        untrained: whether random weights are accepted.

    Raises:
        ValueError: there are no weights.
    """
    own = isinstance(model, LitModule) and model.weight_files()
    if ckpt_path is None and not own and not untrained:
        options = model.weight_options if isinstance(model, LitModule) else ()
        also = f" (or {' and '.join(f'--model.{name}' for name in options)})" if options else ""
        raise ValueError(
            f"litscale {command} was given no weights: give --ckpt_path, such as runs/NAME/checkpoints/"
            f"last.ckpt{also}, or --untrained true to use random ones"
        )


def requeued_checkpoint(folder: Path) -> str | None:
    """Return the `newest_checkpoint` for a requeued SLURM job; None without SLURM and at the first start of a job.

    Args:
        folder: the run folder.
    """
    requeued = list(folder.glob(HPC)) or int(os.environ.get("SLURM_RESTART_COUNT", 0))
    return newest_checkpoint(folder) if SLURMEnvironment.detect() and requeued else None


def newest_checkpoint(folder: Path) -> str | None:
    """Return the readable checkpoint of a run with the most steps, which is what ``--ckpt_path auto`` means.

    Args:
        folder: the run folder.

    Returns:
        The path of ``last.ckpt`` or of a checkpoint that Lightning saved when it requeued a job. Only if none of these
        can be read, the path of another file in ``checkpoints/``, such as ``best.ckpt`` or one of a callback. None if
        there are no checkpoints.

    Raises:
        ValueError: there are checkpoints, but a training can resume from none of them.
    """
    own = [*sorted(folder.glob(HPC)), checkpoint_in(folder, "last")]
    others = sorted({*(folder / CHECKPOINTS).glob("*.ckpt")} - {*own})
    problems: list[str] = []
    for paths in (own, others):
        steps = dict(_resumable(paths, problems, verified=False))
        # Comparing checksums reads whole files, and a run may have kept hundreds.
        by_steps = _resumable(sorted(steps, key=lambda path: steps[path], reverse=True), problems, verified=True)
        if found := next(by_steps, None):
            for problem in problems:
                rank_zero_warn(f"{problem}; using another checkpoint")
            rank_zero_info(f"Resuming from {found[0]}, step {found[1]}")
            return str(found[0])
    if problems:
        raise ValueError(f"{folder} has no checkpoint to resume from: {'; '.join(problems)}; remove them to begin anew")
    return None


def _resumable(paths: Iterable[Path], problems: list[str], verified: bool) -> Iterator[tuple[Path, int]]:
    """Yield checkpoints from which a training can resume, with their steps; add faults of others to ``problems``."""
    for path in paths:
        try:
            content = read_checkpoint(path / "meta.pt" if path.is_dir() else path, verified=verified)
            if "lr_schedulers" not in content:
                raise ValueError(f"{path} holds no more than weights")
            yield path, content["global_step"]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            problems.append(str(error))
