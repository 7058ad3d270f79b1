"""State dicts: reading files of them, and what two of them disagree on."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


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


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """One line for each entry of ``given`` that does not fit ``own``: missing, unexpected or of another shape."""
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in own]
    return problems + [
        f"{name} is {list(given[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]


def mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor], most: int = 6) -> str:
    """The first of the differences in one line, and the number of the others; empty where everything fits."""
    problems = differences(own, given)
    return "; ".join(problems[:most]) + (f" and {len(problems) - most} more" if len(problems) > most else "")


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict.

    Raises:
        ValueError: entries are missing, unexpected or of another shape.
    """
    if problems := mismatch(module.state_dict(), state):
        raise ValueError(problems)
    module.load_state_dict(state)
