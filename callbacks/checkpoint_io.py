"""How checkpoints reach the disk: finite, whole or absent, and read as data only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from torch import Tensor

from litscale.storage.checkpoints import read_checkpoint, stamp
from litscale.storage.files import atomic_file

# Entries of Lightning's checkpoints that hold weights, moving averages and moments.
STATES = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")


class NonFiniteError(FloatingPointError):
    """Weights, averages or moments that are not finite; they are not saved."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints beside their final name, synced and renamed, with a checksum; reads them with weights only.

    It takes the place of Lightning's own, which collects a file in ``$TMPDIR`` and copies it over the old one where
    that is another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or leave what is there as it is.

        Args:
            checkpoint: what Lightning collects.
            path: the file; its folder is made.
            storage_options: none are known.

        Raises:
            NonFiniteError: an entry of the weights, averages or moments is not finite; it is named.
            OSError: the file could not be written.
            TypeError: there are storage_options.
        """
        if storage_options is not None:
            raise TypeError("storage_options: a checkpoint is an ordinary file, which takes no options")
        path = Path(path)
        if name := next(_not_finite({key: checkpoint.get(key) for key in STATES}), None):
            raise NonFiniteError(
                f"{path} is not written: at step {checkpoint.get('global_step')} the values of {name} are not finite. "
                "The checkpoint before it stays; lower the learning rate (optimization.lr or base_lr), lengthen the "
                "warm-up or set trainer.gradient_clip_val, and go on with --ckpt_path last"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            torch.save(stamp(checkpoint), file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; raises as `litscale.storage.checkpoints.read_checkpoint` does."""
        return read_checkpoint(path, "--ckpt_path")


def use_checkpoint_files(trainer: Trainer) -> None:
    """Have a trainer write and read its checkpoints by `CheckpointFiles`, whatever the strategy."""
    if not isinstance(trainer.strategy.checkpoint_io, CheckpointFiles):
        trainer.strategy.checkpoint_io = CheckpointFiles()


def _not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Names of the tensors that hold infinities or NaN, depth first."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and not torch.isfinite(value).all():
            yield name
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _not_finite(entry, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from _not_finite(entry, f"{name}.{number}")
