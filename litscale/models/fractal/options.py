"""Checking and spreading the options of the recursion, and initial weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from torch import nn

T = TypeVar("T")


def per_level(option: str, value: T | Sequence[T], depth: int) -> list[T]:
    """Return one value for each level, from a list of them or from one value for all.

    Raises:
        ValueError: the list has another length.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [cast("T", value)] * depth
    if len(value) != depth:
        raise ValueError(
            f"{option} has {_entries(value)} for {depth} level{'s' * (depth != 1)}: give one, or one per level"
        )
    return list(value)


def _entries(values: Sequence[object]) -> str:
    """Return how many entries a list has, in words."""
    return f"{len(values)} {'entry' if len(values) == 1 else 'entries'}"


def check_lengths(depth: int, **lists: Sequence[object]) -> None:
    """Refuse lists that do not have one entry for each level and one for the leaf.

    Raises:
        ValueError: there is such a list, and the message names the first one; or there is no level.
    """
    for name, values in lists.items():
        if len(values) != depth + 1:
            levels = f"{depth} generator{'s' * (depth != 1)}"
            raise ValueError(f"{name} has {_entries(values)}, but {levels} and a leaf need {depth + 1}")
    if not depth:
        raise ValueError("generators is empty: name at least one level, 'ar' or 'mar'")


def check_heads(width: tuple[str, int], heads: tuple[str, int], rotary: bool) -> None:
    """Refuse attention heads that do not divide the width, or that rotary positions cannot turn.

    Args:
        width: the option, and its value.
        heads: likewise.
        rotary: whether half of the pairs of each head's channels turn with the row, and half with the column.

    Raises:
        ValueError: the heads do not fit the width; the message names both options.
    """
    if min(width[1], heads[1]) < 1 or width[1] % heads[1]:
        raise ValueError(f"{heads[0]}, {heads[1]}, does not divide {width[0]}, {width[1]}")
    if rotary and width[1] // heads[1] % 4:
        raise ValueError(
            f"{width[0]} / {heads[0]} is {width[1] // heads[1]}, but positions rope and both need a multiple of 4"
        )


def check_name(option: str, name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: the name is unknown; the message names the option and the known names.
    """
    if name not in known:
        raise ValueError(f"{option} must be among {', '.join(known)}, not {name!r}")


def initialise(network: nn.Module) -> None:
    """Initialise a network: Xavier for linear layers, zero biases, and small normals for embeddings and tokens."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for name, parameter in network.named_parameters():
        if name.endswith(("no_class", "pos_emb", "phase_emb", "mask_token", "codebook")):
            nn.init.normal_(parameter, std=0.02)
