"""State dicts out of the files and wrappings that they come in, and what two of them disagree on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from litscale.storage.checkpoints import read_checkpoint


def unwrapped(checkpoint: Mapping[str, Any] | str | Path, *wrappers: str) -> Mapping[str, Tensor]:
    """Return the state dict of a checkpoint.

    Args:
        checkpoint: a state dict, or a file that holds one.
        wrappers: keys that it may stand under, from the outermost to the innermost; those that are absent are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds code, or there is no state dict.
    """
    state: Any = read_checkpoint(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    for wrapper in wrappers:
        if isinstance(state, Mapping):
            state = state.get(wrapper, state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        where = f"checkpoint {checkpoint}" if isinstance(checkpoint, (str, Path)) else "the checkpoint"
        raise ValueError(f"{where} holds no state dict, tensors by name: give another file")
    return state


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return one line for each entry that ``given`` lacks, has unexpectedly, or has in another shape than ``own``."""
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in own]
    return problems + [
        f"{name} is {list(given[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]


def mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return the first six differences in one line, and the number of the others; empty if everything fits."""
    problems = differences(own, given)
    return "; ".join(problems[:6]) + (f" and {len(problems) - 6} more" if len(problems) > 6 else "")


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict into a module.

    Raises:
        ValueError: entries are missing, unexpected or of another shape.
    """
    if problems := mismatch(module.state_dict(), state):
        raise ValueError(problems)
    module.load_state_dict(state)
