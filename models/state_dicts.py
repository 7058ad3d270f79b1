"""What two state dicts disagree on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


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
