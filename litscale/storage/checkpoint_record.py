"""Which checkpoint a result is of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litscale.storage.checkpoints import read_checkpoint


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint, so that it is recognised whatever later lies under its name.

    Attributes:
        checkpoint: its absolute path.
        step: optimiser steps that it was trained for; None in files that do not say.
        sha256: of the file.
    """

    checkpoint: str
    step: int | None
    sha256: str


def record_checkpoint(path: str | Path, option: str = "checkpoint") -> CheckpointRecord:
    """Read a checkpoint's step and hash the file.

    Args:
        path: the file.
        option: what the user calls it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds more than weights and plain values.
    """
    content = read_checkpoint(path, option)
    step = content.get("global_step") if isinstance(content, Mapping) else None
    return CheckpointRecord(str(Path(path).resolve()), step, file_sha256(path))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, as ``sha256sum`` prints it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
