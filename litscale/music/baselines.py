"""Two small models of rolls, to tell a network what its likelihood is worth.

Both give every column, thus every roll, a probability above zero, and their probabilities sum to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

ROUNDS, SETTLED = 100, 1e-7  # of expectation maximisation, and the change of weights that ends it


@dataclass(frozen=True)
class IndependentPitches:
    """Each pitch draws its symbol at each step on its own, from the frequencies of its row.

    Args:
        logp: log probabilities, float64 ``[pitch, symbol]``; each row sums to one.
    """

    logp: np.ndarray

    @classmethod
    def fit(
        cls, rolls: Iterable[np.ndarray], alphabet: int, hold: int | None = None, *, smoothing: float = 0.5
    ) -> IndependentPitches:
        """Fit the frequencies by counting symbols.

        Args:
            rolls: uint8 matrices ``[pitch, step]`` with one number of pitches.
            alphabet: number of symbols.
            hold: taken and not used, so that both baselines are fitted alike.
            smoothing: added to each count, above 0.

        Returns:
            The fitted model.

        Raises:
            ValueError: no columns, unlike numbers of pitches, a symbol outside the alphabet, or no smoothing.
        """
        if smoothing <= 0:
            raise ValueError(f"smoothing must be above 0, not {smoothing}")
        counts: np.ndarray | None = None
        for roll in rolls:
            if counts is None or not counts.any():
                counts = np.zeros((roll.shape[0], alphabet))
            if roll.shape[0] != len(counts):
                raise ValueError(f"rolls of {len(counts)} and of {roll.shape[0]} pitches")
            if roll.size and roll.max() >= alphabet:
                raise ValueError(f"symbol {roll.max()} is outside the alphabet of {alphabet}")
            counts += np.stack([np.count_nonzero(roll == symbol, axis=1) for symbol in range(alphabet)], axis=1)
        if counts is None or not counts.any():
            raise ValueError("no columns to fit")
        counts += smoothing
        return cls(np.log(counts / counts.sum(axis=1, keepdims=True)))

    def column_nats(self, roll: np.ndarray) -> np.ndarray:
        """Compute minus the log probability of each column.

        Args:
            roll: uint8 ``[pitch, step]``.

        Returns:
            float64 ``[step]``, in nats.

        Raises:
            ValueError: another number of pitches than the model has, or a symbol outside its alphabet.
        """
        pitches, alphabet = self.logp.shape
        if roll.shape[0] != pitches:
            raise ValueError(f"a roll of {roll.shape[0]} pitches, but the model has {pitches}")
        if roll.size and roll.max() >= alphabet:
            raise ValueError(f"symbol {roll.max()} is outside the alphabet of {alphabet}")
        return -self.logp[np.arange(pitches)[:, None], roll].sum(axis=0)

    def nats(self, roll: np.ndarray) -> float:
        """Compute minus the log probability of a roll, uint8 ``[pitch, step]``, in nats; see `column_nats`."""
        return float(self.column_nats(roll).sum())

    def nats_per_step(self, roll: np.ndarray) -> float:
        """Compute `nats` divided by the number of columns; NaN for a roll without columns."""
        return self.nats(roll) / roll.shape[1] if roll.shape[1] else float("nan")


@dataclass(frozen=True)
class RepeatOrRedraw:
    """Each step carries on the last one with probability ``repeat``, or else is redrawn.

    To carry on, an onset becomes a hold, a hold stays a hold and silence stays silence; without a hold symbol
    all symbols stay. A redraw is with probability ``recall`` one of the columns of the training data,
    by its frequency there, and otherwise one of `IndependentPitches`; it may by chance equal what was there.
    A column ``x`` after ``y`` thus has probability ``repeat * [x = carried(y)] + (1 - repeat) * redraw(x)``,
    with ``redraw(x) = recall * frequency(x) + (1 - recall) * independent(x)``. The first column is redrawn.

    Args:
        repeat: in (0, 1).
        recall: in (0, 1).
        columns: how often each column was drawn in training (an expectation), under its bytes.
        independent: the distribution of columns that training need not have had.
        hold: the symbol of a note that goes on; None where the alphabet has none.
    """

    repeat: float
    recall: float
    columns: Mapping[bytes, float]
    independent: IndependentPitches
    hold: int | None = None

    @classmethod
    def fit(
        cls, rolls: Iterable[np.ndarray], alphabet: int, hold: int | None = None, *, smoothing: float = 0.5
    ) -> RepeatOrRedraw:
        """Fit weights and counts by expectation maximisation; a column counts as often as it was probably redrawn.

        A column that repeats may have been redrawn by chance. The likelihood takes this into account, and in
        it each column's frequency leaves out that column itself, else ``recall`` would trust that new music
        has no new columns. The independent part is counted at changes only.

        Args:
            rolls: uint8 matrices ``[pitch, step]`` with one number of pitches.
            alphabet: number of symbols.
            hold: the symbol of a note that goes on; None where the alphabet has none.
            smoothing: added to each count of symbols and to each use of the three ways to make a column,
                above 0.

        Returns:
            The fitted model.

        Raises:
            ValueError: as `IndependentPitches.fit`.
        """
        rolls = list(rolls)
        # A roll's first column counts as a change: nothing stands before it to repeat.
        repeats = [np.append([False], _repeats(roll, hold))[: roll.shape[1]] for roll in rolls]
        changed = [roll[:, ~repeat] for roll, repeat in zip(rolls, repeats, strict=True)]
        independent = IndependentPitches.fit(changed, alphabet, smoothing=smoothing)

        numbers: dict[bytes, int] = {}
        keys = (key for roll in rolls for key in _columns(roll))
        column = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        later = np.concatenate([np.arange(roll.shape[1]) > 0 for roll in rolls])
        repeat = np.concatenate(repeats)
        # Logarithms: a dense column can be rarer than the smallest float.
        invented = -np.concatenate([independent.column_nats(roll) for roll in rolls])
        drawn = 1.0 - repeat  # how surely each column was redrawn
        weights = np.full(3, 1 / 3)  # of repeating, recalling, inventing
        for _ in range(ROUNDS):
            count = np.bincount(column, drawn, len(numbers))
            recalled = np.maximum(count[column] - drawn, 0) / np.maximum(count.sum() - drawn, 1e-9)
            with np.errstate(divide="ignore"):
                share = np.log(weights)[:, None] + np.stack([np.log(repeat), np.log(recalled), invented])
            share = np.exp(share - np.logaddexp.reduce(share, keepdims=True))  # [way, column]
            drawn = np.where(later, 1 - share[0], 1.0)
            used = share[:, later].sum(axis=1) + smoothing
            before, weights = weights, used / used.sum()
            if np.abs(weights - before).max() < SETTLED:
                break
        columns = dict(zip(numbers, np.bincount(column, drawn, len(numbers)).tolist(), strict=True))
        return cls(float(weights[0]), float(weights[1] / weights[1:].sum()), columns, independent, hold)

    def column_nats(self, roll: np.ndarray) -> np.ndarray:
        """Compute minus the log probability of each column, given the one before it.

        Args:
            roll: uint8 ``[pitch, step]``.

        Returns:
            float64 ``[step]``, in nats.

        Raises:
            ValueError: another number of pitches than the model has, or a symbol outside its alphabet.
        """
        invented = np.log1p(-self.recall) - self.independent.column_nats(roll)
        frequency = np.array([self.columns.get(column, 0) for column in _columns(roll)], dtype=np.float64)
        with np.errstate(divide="ignore"):
            recalled = np.log(self.recall * frequency / sum(self.columns.values()))
        logp = np.logaddexp(invented, recalled)
        repeated = np.where(_repeats(roll, self.hold), np.log(self.repeat), -np.inf)
        logp[1:] = np.logaddexp(logp[1:] + np.log1p(-self.repeat), repeated)
        return -logp

    def nats(self, roll: np.ndarray) -> float:
        """Compute minus the log probability of a roll, uint8 ``[pitch, step]``, in nats; see `column_nats`."""
        return float(self.column_nats(roll).sum())

    def nats_per_step(self, roll: np.ndarray) -> float:
        """Compute `nats` divided by the number of columns; NaN for a roll without columns."""
        return self.nats(roll) / roll.shape[1] if roll.shape[1] else float("nan")


def _columns(roll: np.ndarray) -> list[bytes]:
    """Return the bytes of each column of ``[pitch, step]``."""
    return [column.tobytes() for column in np.ascontiguousarray(roll.T)]


def _repeats(roll: np.ndarray, hold: int | None) -> np.ndarray:
    """Return where a column carries on the one before it, bool ``[step - 1]``."""
    before = roll[:, :-1]
    carried = before if hold is None else np.where(before > 0, hold, 0)
    return (roll[:, 1:] == carried).all(axis=0)
