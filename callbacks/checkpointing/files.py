"""Files of checkpoints: written whole or not at all, only with finite values, and read without running code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_models.base import REMEDY
from litscale.storage.checkpoints import read_checkpoint, stamp
from litscale.storage.files import atomic_file

# Entries of Lightning's checkpoints that hold weights, moving averages and moments.
STATES = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
PREVIOUS = ".last.earlier.ckpt"


class NonFiniteError(FloatingPointError):
    """Weights, averages or moments are not finite and therefore not saved."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints with a checksum to a file beside, which is synced and renamed; reads them with weights only.

    It replaces Lightning's own class, which writes a file in ``$TMPDIR`` and copies it over the old one if that is
    another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or leave the existing file unchanged.

        Args:
            checkpoint: the entries that Lightning collects.
            path: the file; its folder is made.
            storage_options: must be None.

        Raises:
            NonFiniteError: an entry of the weights, averages or moments is not finite; the message names it.
            OSError: the file could not be written.
            TypeError: storage_options are given.
        """
        if storage_options is not None:
            raise TypeError("storage_options: a checkpoint is an ordinary file, which takes no options")
        path = Path(path)
        if name := next(_not_finite({key: checkpoint.get(key) for key in STATES}), None):
            raise NonFiniteError(
                f"{path} is not written: at step {checkpoint.get('global_step')} the values of {name} are not finite. "
                f"The checkpoint before it stays; {REMEDY}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        handled = sys.exception()  # a save that follows an exception does not fail because of it
        with atomic_file(path) as file:
            try:
                torch.save(stamp(checkpoint), file)
            except RuntimeError as error:
                # When a disk is full, or a signal ends the process, torch still tries to end its archive, and raises
                # its own error about that.
                raise _reason(error, handled) from None

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; raise the errors of `litscale.storage.checkpoints.read_checkpoint`."""
        return read_checkpoint(path, "--ckpt_path")


def _reason(error: BaseException, handled: BaseException | None) -> BaseException:
    """Return the system's error, or the end of the process, that led to an error; if there was none, the error itself.

    Args:
        error: the last error.
        handled: the exception that was being handled before the first error.
    """
    earlier: BaseException | None = error
    while earlier is not None and earlier is not handled:
        if isinstance(earlier, OSError) or not isinstance(earlier, Exception):
            return earlier
        earlier = earlier.__context__
    return error


def use_checkpoint_files(trainer: Trainer) -> None:
    """Make a trainer write and read its checkpoints with `CheckpointFiles`, under any strategy."""
    if not isinstance(trainer.strategy.checkpoint_io, CheckpointFiles):
        trainer.strategy.checkpoint_io = CheckpointFiles()


def copy_moments(optimizers: Iterable[Optimizer]) -> None:
    """Copy the moments that optimisers took over from a checkpoint, as these lie in its memory-mapped file.

    The file's space would otherwise be free only at the end of the run, and reading could fail if another node replaces
    the file.
    """
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.device.type == "cpu":
                    state[name] = value.clone()


# The loss of new weights is known one step late. Until then the checkpoint before them is kept as well.


def keep_previous(path: Path) -> None:
    """Keep a checkpoint that is about to be replaced, under a hidden name beside it; the one kept so far is deleted."""
    if path.exists():
        discard_previous(path)
        # A file system without hard links has no previous checkpoint, and the run goes on without it.
        with suppress(OSError):
            os.link(path, path.with_name(PREVIOUS))


def restore_previous(path: Path) -> None:
    """Put the previous checkpoint back in the place of the last one, if it was kept."""
    with suppress(FileNotFoundError):
        path.with_name(PREVIOUS).replace(path)


def discard_previous(path: Path) -> None:
    """Delete the previous checkpoint, if it was kept."""
    path.with_name(PREVIOUS).unlink(missing_ok=True)


def _not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the tensors that hold infinities or NaN, depth first."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and not torch.isfinite(value).all():
            yield name
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _not_finite(entry, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from _not_finite(entry, f"{name}.{number}")
