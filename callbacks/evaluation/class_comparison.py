"""`compared_classes`: the class of the data to which generated windows and training windows are nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from callbacks.reporting.result_table import Column, ResultTable
from litscale.music import Roll, RollFormat, features, nearest_classes, notes
from litscale.music.features import LEAST_NOTES

NO_CLASS = -1
LEAST_CLASSES = 2  # that have windows in the data, for one to be the nearest
Shares = dict[str, dict[str, float]]


@dataclass(frozen=True)
class LabelledWindows:
    """Windows with their classes.

    Attributes:
        windows: uint8 ``[n, pitch, step]``.
        labels: int64 ``[n]``, -1 for a window without class.
    """

    windows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True)
class ComparedClasses:
    """The classes to which windows are nearest; empty if the data have fewer than two classes.

    Attributes:
        names: names of the classes.
        shares: ``generated`` and ``training`` -> class -> nearest class -> share of the class's windows. Classes
            without windows of that kind are left out.
        own: ``generated`` and ``training`` -> share of all these windows that are nearest to their own class.
        missing: names of the classes that have no window in the data.
    """

    names: list[str] = field(default_factory=list)
    shares: dict[str, Shares] = field(default_factory=dict)
    own: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def logged(self) -> dict[str, float]:
        """Return name on dashboards, without the part ``music/`` -> number."""
        prefixes = {"generated": "", "training": "training/"}
        return {f"{prefixes[source]}nearest_class": share for source, share in self.own.items()}


def spread(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of the numbers 0 .. count - 1, evenly spread, int64."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def classes_alike(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Choose as many of the others in each class as ``labels`` has, evenly spread, or all if there are fewer.

    Args:
        labels: classes, int64 ``[n]``; numbers below 0 are no class.
        others: classes to choose from, int64 ``[m]``.

    Returns:
        Places in ``others`` that are chosen, int64 ``[at most n]``, class after class.
    """
    members = [
        (np.flatnonzero(others == label), int((labels == label).sum())) for label in np.unique(labels[labels >= 0])
    ]
    return np.concatenate([np.zeros(0, int), *(numbers[spread(len(numbers), count)] for numbers, count in members)])


def compared_classes(
    generated: LabelledWindows, data: LabelledWindows, training: LabelledWindows, form: RollFormat, names: Sequence[str]
) -> ComparedClasses:
    """Find the nearest classes, see `litscale.music.nearest_classes`, of generated windows and of training windows.

    Windows of the data that have no class, or too few notes for features, are left out. Generated and training windows
    that have too few notes are nearest to no class. No window is nearest to a class without windows in the data, so
    windows of such a class are nearest to others.

    Args:
        generated: windows with the classes for which they were generated.
        data: windows with their classes, with whose means the others are compared.
        training: windows of the training pieces with their classes; empty if these are not known.
        form: the format of the windows.
        names: names of all classes.

    Returns:
        The shares; empty if fewer than two classes have windows in the data.
    """
    # 1. the data
    known = data.labels != NO_CLASS
    described, there = _features(data.windows[known], form)
    labels = data.labels[known][there]
    classes = set(labels.tolist())
    if len(classes) < LEAST_CLASSES:
        return ComparedClasses()
    # 2. what is compared with them
    shares: dict[str, Shares] = {}
    own: dict[str, float] = {}
    for source, part in (("generated", generated), ("training", training)):
        if not len(part):
            continue
        ours, has_features = _features(part.windows, form)
        nearest = np.full(len(part), NO_CLASS)
        nearest[has_features] = nearest_classes(ours, described, labels.tolist())
        own[source] = float((nearest == part.labels).mean())
        shares[source] = {
            name: {other: float((nearest[part.labels == label] == k).mean()) for k, other in enumerate(names)}
            for label, name in enumerate(names)
            if (part.labels == label).any()
        }
    missing = [name for label, name in enumerate(names) if label not in classes]
    return ComparedClasses(list(names), shares, own, missing)


def class_table(compared: ComparedClasses) -> ResultTable:
    """Return a table with a row for each class and source, and a column for each class that may be the nearest."""
    rows = {
        f"{name}, {source}": shares[name]
        for name in compared.names
        for source, shares in compared.shares.items()
        if name in shares
    }
    columns = {name: Column(name, "{:.1%}") for name in compared.names}
    title = f"Share of the windows of a class that are nearest to each class (by chance {1 / len(compared.names):.1%})"
    return ResultTable("class, windows", columns, rows, title)


def class_numbers(compared: ComparedClasses) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {
        source: {"nearest_class": compared.own[source], "shares": shares} for source, shares in compared.shares.items()
    }


def class_remark(compared: ComparedClasses) -> str:
    """Return a sentence that names the classes without windows in the data."""
    return f"The data have no windows of {', '.join(compared.missing)}, so nothing is nearest to it."


def with_notes(windows: Iterable[np.ndarray], form: RollFormat) -> tuple[list[Roll], np.ndarray]:
    """Return the windows that have enough notes for features, as rolls, and which ones these are, bool ``[n]``."""
    rolls = [Roll(window, form) for window in windows]
    enough = np.array([len(notes(roll)) >= LEAST_NOTES for roll in rolls], dtype=bool)
    return [roll for roll, there in zip(rolls, enough, strict=True) if there], enough


def _features(windows: np.ndarray, form: RollFormat) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Return the features of windows that have enough notes, and which ones these are, bool ``[n]``."""
    rolls, enough = with_notes(windows, form)
    return [features(roll) for roll in rolls], enough
