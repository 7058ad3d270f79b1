"""Checkpoints, read as weights and plain values only."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_checkpoint(path: str | Path, option: str = "checkpoint") -> Any:
    """Load a file of ``torch.save`` onto the CPU without running code that it holds.

    Published checkpoints keep the options that they were trained with as an ``argparse.Namespace``, which is allowed.

    Args:
        path: the file.
        option: what the user calls it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds more than weights and plain values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} {path}: no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{option} {path} holds more than weights and plain values; loading it could run code, so it is refused"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{option} {path} is damaged or truncated ({error}): use another copy") from error
