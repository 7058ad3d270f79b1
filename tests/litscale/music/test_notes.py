"""Notes off rolls and into them."""

from __future__ import annotations

import numpy as np
import pytest

from litscale.music import Roll, RollFormat, notes, repair
from litscale.music.notes import NOTE, bin_to_velocity, paint, velocity_to_bin


def row(symbols: list[int], form: RollFormat) -> Roll:
    return Roll(np.array([symbols], np.uint8), form)


def found(roll: Roll) -> list[tuple[int, ...]]:
    return [tuple(note) for note in notes(roll).tolist()]


@pytest.mark.parametrize("bins", [1, 2, 5, 8, 32, 64, 126, 127])
def test_velocity_bins(bins: int) -> None:
    velocity = np.arange(1, 128)
    assert velocity_to_bin(velocity, bins).tolist() == [int(np.ceil(v * bins / 127)) for v in velocity]
    numbers = np.arange(1, bins + 1)
    np.testing.assert_array_equal(velocity_to_bin(bin_to_velocity(numbers, bins), bins), numbers)


def test_all_127_bins_keep_velocities() -> None:
    np.testing.assert_array_equal(bin_to_velocity(np.arange(1, 128), 127), np.arange(1, 128))


def test_notes_of_each_encoding() -> None:
    onset_hold = RollFormat("onset_hold", lowest_pitch=60, pitches=1)
    assert found(row([0, 5, 128, 9, 9, 0, 7], onset_hold)) == [
        (60, 1, 3, 5),
        (60, 3, 4, 9),
        (60, 4, 5, 9),
        (60, 6, 7, 7),
    ]
    velocity = RollFormat("velocity", lowest_pitch=60, pitches=1)
    assert found(row([5, 5, 9, 0, 9], velocity)) == [(60, 0, 2, 5), (60, 2, 3, 9), (60, 4, 5, 9)]
    binary = RollFormat("binary", lowest_pitch=60, pitches=1, velocity=33)
    assert found(row([1, 1, 0, 1], binary)) == [(60, 0, 2, 33), (60, 3, 4, 33)]


def test_a_note_at_the_edge_ends_with_its_row() -> None:
    roll = Roll(np.array([[0, 1], [1, 1]], np.uint8), RollFormat("binary", pitches=2))
    assert found(roll) == [(1, 0, 2, 80), (0, 1, 2, 80)]


def test_a_hold_that_holds_nothing_is_an_onset() -> None:
    form = RollFormat("onset_hold", velocity_bins=8, pitches=1, velocity=100)
    roll = row([9, 9, 0, 9, 2, 9], form)
    repaired = repair(roll)
    assert repaired.symbols.tolist() == [[7, 9, 0, 7, 2, 9]]
    assert [note[:3] for note in found(roll)] == [note[:3] for note in found(repaired)]
    assert [note[:3] for note in found(roll)] == [(0, 0, 2), (0, 3, 4), (0, 4, 6)]
    np.testing.assert_array_equal(repair(repaired).symbols, repaired.symbols)
    assert repair(row([1, 0], RollFormat("binary", pitches=1))).symbols.tolist() == [[1, 0]]


def test_rolls_without_steps_or_notes() -> None:
    assert len(notes(Roll(np.zeros((128, 0), np.uint8)))) == 0
    assert len(notes(Roll(np.zeros((128, 9), np.uint8)))) == 0


def test_paint_refuses_notes_outside() -> None:
    played = np.array([(60, 0, 5, 64)], NOTE)
    assert paint(played, RollFormat(), 5).symbols[60].tolist() == [64, 128, 128, 128, 128]
    with pytest.raises(ValueError, match="outside"):
        paint(played, RollFormat(), 4)
    with pytest.raises(ValueError, match="outside"):
        paint(played, RollFormat().cropped(61, 70), 5)
