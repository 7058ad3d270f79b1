"""State of a trainer that callbacks ask for: the run folder, the stage, and which checkpoint was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from lightning.pytorch import Trainer

T = TypeVar("T")


def gathered(trainer: Trainer, value: T) -> list[T]:
    """Return the values of all ranks, in the order of ranks; every rank must call this."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[T] = [value] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of this run: ``trainer.default_root_dir``, wherever the loggers write."""
    return Path(trainer.default_root_dir)


def stage_of(trainer: Trainer) -> tuple[str, str]:
    """Return the stage's name in files (``validate`` or ``test``) and on dashboards (``val`` or ``test``)."""
    return ("test", "test") if trainer.testing else ("validate", "val")


def checkpoint_of(trainer: Trainer) -> str | None:
    """Return the path of the evaluated weights; None if none were loaded."""
    return None if trainer.ckpt_path is None else str(trainer.ckpt_path)


def resumed_checkpoint(trainer: Trainer) -> str | None:
    """Return the path of the checkpoint from which a training resumes; None for a new run.

    A search before the training (`LearningRateFinder`, `BatchSizeFinder`) leaves the path of a file of its own in
    ``trainer.ckpt_path``, which it has removed.
    """
    path = trainer.ckpt_path
    return str(path) if path is not None and Path(path).exists() else None


def is_trial(trainer: Trainer) -> bool:
    """Return whether this is a run of a few batches that leaves nothing behind (``fast_dev_run``)."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def logs_now(trainer: Trainer) -> bool:
    """Return whether loggers receive this training step (``log_every_n_steps``)."""
    # Lightning's own callbacks ask the same; the rule has no public name.
    return is_trial(trainer) or trainer._logger_connector.should_update_logs
