"""What two state dicts disagree on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """One line for each entry of ``given`` that does not fit ``own``: missing, unexpected or of another shape."""
    problems = [f"missing {name}" for name in own if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in own]
    return problems + [
        f"{name} is {list(given[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
