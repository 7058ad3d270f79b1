"""What the pieces, or a checkpoint that was trained on them, tell of classes: their names and the meters of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from datamodules.messages import abridged


@dataclass(frozen=True)
class PieceClasses:
    """The classes of pieces.

    Attributes:
        names: name of each class; empty without classes, or if they are not known.
        meters: class, and None for all pieces -> quarter notes per bar of most of its pieces; empty if not known.
    """

    names: list[str] = field(default_factory=list)
    meters: Mapping[int | None, float] = field(default_factory=dict)

    @classmethod
    def of_pieces(cls, meters: np.ndarray, names: list[str], classes: Sequence[str]) -> Self:
        """Return the classes of pieces.

        Args:
            meters: quarter notes per bar of each piece, ``[n]``.
            names: name of each class; empty without classes.
            classes: name of each piece's class, if there are any.
        """
        found: dict[int | None, float] = {None: _most_frequent(meters)}
        of_piece = np.array(classes)
        for label, name in enumerate(names):
            if (own := of_piece == name).any():
                found[label] = _most_frequent(meters[own])
        return cls(names, found)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the classes in the state of a data module in a checkpoint."""
        meters: dict[int | None, float] = {None: state["beats_per_bar"]}
        meters |= dict(enumerate(state.get("class_beats_per_bar", ())))
        return cls(list(state.get("class_names", ())), meters)

    def meter(self, label: int | None) -> float | None:
        """Return the quarter notes per bar of samples of a class, or of no class; None if they are not known."""
        return self.meters.get(label, self.meters.get(None))


def number_of(label: int | str, names: Sequence[str]) -> int:
    """Return the number of the class that ``predict.label`` asks for by number or name.

    Args:
        label: number or name; a name, if it is both.
        names: name of each class.

    Raises:
        ValueError: there is no such class.
    """
    number = names.index(str(label)) if str(label) in names else label
    if not isinstance(number, int) or not 0 <= number < len(names):
        known = [f"{number} {name}" for number, name in enumerate(names)]
        raise ValueError(f"predict.label is {label}, but the classes are {abridged(known)}")
    return number


def _most_frequent(meters: np.ndarray) -> float:
    values, counts = np.unique(meters, return_counts=True)
    return float(values[np.argmax(counts)])
