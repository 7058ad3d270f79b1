"""Runs that windows have in common with pieces, against a search of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litscale.music.copying import longest_runs

PITCHES = 6


def searched(window: np.ndarray, pieces: list[np.ndarray]) -> int:
    """The longest run by comparing each part of the window, moved by each interval, with each part of each piece."""
    for length in range(window.shape[1], 0, -1):
        for first in range(window.shape[1] - length + 1):
            part = window[:, first : first + length]
            for interval in range(-PITCHES, PITCHES + 1):
                rows = [row + interval for row in range(PITCHES) if part[row].any()]
                if rows and not 0 <= min(rows) <= max(rows) < PITCHES:
                    continue
                moved = np.zeros_like(part)
                for row in range(PITCHES):
                    if part[row].any():
                        moved[row + interval] = part[row]
                for piece in pieces:
                    for place in range(piece.shape[1] - length + 1):
                        if np.array_equal(moved, piece[:, place : place + length]):
                            return length
    return 0


def roll(seed: int, steps: int) -> np.ndarray:
    """Few notes among silence, so that much is found again."""
    return np.random.default_rng(seed).choice([0, 1, 2], (PITCHES, steps), p=[0.85, 0.1, 0.05]).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 9), max_size=3), st.lists(st.integers(1, 7), max_size=3))
def test_all_parts_compared(seed: int, pieces: list[int], windows: list[int]) -> None:
    known = [roll(seed + number, steps) for number, steps in enumerate(pieces)]
    asked = [roll(seed + 100 + number, steps) for number, steps in enumerate(windows)]
    assert longest_runs(asked, known).tolist() == [searched(window, known) for window in asked]


@pytest.mark.parametrize("seed", range(20))
def test_dense_music_has_as_much_in_common_as_all_parts_compared_say(seed: int) -> None:
    """With many shapes, of which neighbouring numbers must not be mistaken for a distance in pitch."""
    random = np.random.default_rng(seed)
    piece, window = ((random.random((PITCHES, steps)) < 0.25).astype(np.uint8) for steps in (60, 20))
    assert longest_runs([window], [piece]).tolist() == [searched(window, [piece])]


@pytest.mark.parametrize("interval", [-20, 0, 5])
def test_a_transposed_copy_is_found_whole(interval: int) -> None:
    random = np.random.default_rng(3)
    piece = np.zeros((64, 50), np.uint8)
    piece[25:45] = random.integers(0, 3, (20, 50)) * (random.random((20, 50)) < 0.3)
    assert longest_runs([np.roll(piece, interval, 0)[:, 11:40]], [piece[:, :7], piece]).tolist() == [29]


def test_an_interval_within_the_run_is_none_of_a_transposition() -> None:
    piece = np.zeros((8, 4), np.uint8)
    piece[[1, 3, 2, 4], range(4)] = 1
    window = piece.copy()
    window[:, 2:] = np.roll(window[:, 2:], 1, 0)  # two steps, and two others a semitone further up
    assert longest_runs([window], [piece]).tolist() == [2]


def test_silence_before_the_first_note_is_part_of_a_run() -> None:
    piece = np.zeros((8, 5), np.uint8)
    piece[2, 0] = piece[5, 3] = 1
    window = np.zeros((8, 3), np.uint8)
    window[7, 2] = 1  # two silent steps and any note
    assert longest_runs([window, window[:, 2:]], [piece]).tolist() == [3, 1]


def test_no_window_or_no_piece() -> None:
    assert longest_runs([], [roll(1, 5)]).tolist() == []
    assert longest_runs([roll(1, 5)], []).tolist() == [0]
    assert longest_runs([np.zeros((6, 0), np.uint8)], []).tolist() == [0]
