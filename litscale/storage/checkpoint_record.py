"""`CheckpointRecord`: by what a checkpoint is recognised later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.fingerprints import of_file


@dataclass(frozen=True)
class CheckpointRecord:
    """What identifies a checkpoint, even if another file has its name later.

    Attributes:
        checkpoint: its absolute path.
        step: optimiser steps that it was trained for; None in files that do not say.
        sha256: of the file.
    """

    checkpoint: str
    step: int | None
    sha256: str


def record_checkpoint(path: str | Path, option: str = "checkpoint") -> CheckpointRecord:
    """Read a checkpoint's step and hash the file; both are repeated if another file takes its place meanwhile.

    Args:
        path: the file.
        option: what the user calls it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds more than weights and plain values.
    """
    path = Path(path)
    while True:
        before = file_version(path)
        content = read_checkpoint(path, option)
        sha256 = of_file(path)
        # A training that goes on writes its next checkpoint under the same name.
        if file_version(path) == before:
            step = content.get("global_step") if isinstance(content, Mapping) else None
            return CheckpointRecord(str(path.resolve()), step, sha256)


def file_version(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced or its content changes; empty if there is no file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
