"""How much of a piece stands in others: the longest run of steps that they have in common, transposed or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ABSENT = -1  # pitch of silence


def longest_runs(windows: Sequence[np.ndarray], pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Find the longest run of neighbouring steps of each window that also occurs in some piece.

    Two runs are the same if all of their symbols are, after moving one of them by a number of semitones; where a window
    begins or ends does not matter. The time is proportional to the steps of all pieces and to the longest run.

    Args:
        windows: symbols, uint8 ``[pitch, step]``, of any numbers of steps.
        pieces: symbols, uint8 ``[pitch, step]``; as many pitches as the windows have.

    Returns:
        Steps, int64 ``[len(windows)]``; 0 where not even one step of a window occurs in a piece.
    """
    longest = np.zeros(len(windows), np.int64)
    rolls = [*pieces, *windows]
    steps = np.array([roll.shape[1] for roll in rolls], np.int64)
    if not steps.sum():
        return longest
    shape, lowest = _columns(rolls)
    shapes, pitches = int(shape.max()) + 1, len(rolls[0])
    # 1. one run begins at each step of each roll; `owner` is the number of its window, below 0 for pieces
    start = np.arange(steps.sum())
    end = np.repeat(np.cumsum(steps), steps)
    owner = np.repeat(np.arange(len(rolls)) - len(pieces), steps)
    same = np.zeros(len(start), np.int64)  # equal for runs that are the same so far
    anchor = np.full(len(start), ABSENT)  # lowest pitch of the run's first step that is not silent
    for length in range(1, int(steps.max()) + 1):
        # 2. runs grow by a step: they stay the same if its shape is, and its distance from the anchor
        step = start + length - 1
        apart = np.where((anchor == ABSENT) | (lowest[step] == ABSENT), 0, lowest[step] - anchor)
        anchor = np.where(anchor == ABSENT, lowest[step], anchor)
        # (all three in one number, for which 64 bits are enough up to 10^8 steps)
        _, same = np.unique((same * shapes + shape[step]) * 2 * pitches + apart, return_inverse=True)
        # 3. those go on that stand in a window and in a piece, and do not end there
        in_window, in_piece = (np.bincount(same, owner_is) > 0 for owner_is in (owner >= 0, owner < 0))
        common = (in_window & in_piece)[same]
        longest[owner[common & (owner >= 0)]] = length
        going = common & (start + length < end)
        start, end, owner, same, anchor = (values[going] for values in (start, end, owner, same, anchor))
        if not len(start):
            break
    return longest


def _columns(rolls: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return each column's shape, equal for columns that are transposed copies, and its lowest sounding pitch."""
    columns = np.concatenate(rolls, axis=1).T  # [step, pitch]
    pitches = columns.shape[1]
    lowest = np.where(columns.any(1), (columns > 0).argmax(1), ABSENT)
    # moved down until the lowest sounding pitch is 0; what comes round from below is silent
    moved = np.take_along_axis(columns, (np.arange(pitches) + np.maximum(lowest, 0)[:, None]) % pitches, axis=1)
    packed = np.ascontiguousarray(moved).view(np.dtype((np.void, pitches)))[:, 0]
    return np.unique(packed, return_inverse=True)[1], lowest
