"""Rolls at the ends of their ranges, and statistics of uneven music, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from litscale.music import (
    IndependentPitches,
    RepeatOrRedraw,
    Roll,
    RollFormat,
    notes,
    read_midi,
    statistics,
    write_midi,
)
from litscale.music.notes import NOTE, bin_to_velocity, paint, velocity_to_bin
from litscale.music.phase import estimate_phase


def test_the_lowest_and_the_highest_pitch_and_velocity_are_painted_and_read(tmp_path: Path) -> None:
    played = np.array([(0, 0, 1, 1), (127, 2, 5, 127), (126, 3, 4, 64)], NOTE)
    roll = paint(played, RollFormat(), 5)
    assert roll.symbols[127].tolist() == [0, 0, 127, 128, 128]
    assert roll.symbols[126].tolist() == [0, 0, 0, 64, 0]
    assert roll.symbols[0].tolist() == [1, 0, 0, 0, 0]
    back = read_midi(write_midi(roll, tmp_path / "ends.mid"), phase=0)
    np.testing.assert_array_equal(back.symbols, roll.symbols)


def test_the_ends_of_a_cropped_format_are_inside() -> None:
    form = RollFormat("velocity", velocity_bins=4).cropped(60, 62)
    played = np.array([(62, 0, 2, 127), (60, 1, 3, 1)], NOTE)
    assert paint(played, form, 3).symbols.tolist() == [[0, 1, 1], [0, 0, 0], [4, 4, 0]]
    for pitch in (59, 63):
        with pytest.raises(ValueError, match="notes outside the roll of 3 pitches and 3 steps"):
            paint(np.array([(pitch, 0, 1, 64)], NOTE), form, 3)
    with pytest.raises(ValueError, match="outside"):
        paint(np.array([(60, -1, 1, 64)], NOTE), form, 3)
    assert RollFormat(lowest_pitch=127, pitches=1).pitches == 1
    with pytest.raises(ValueError, match=r"pitch rows 127..128 are not within 0..127"):
        RollFormat(lowest_pitch=127, pitches=2)


def test_of_notes_that_overlap_the_later_ends_the_earlier_and_the_loudest_stays() -> None:
    form = RollFormat(velocity_bins=127, lowest_pitch=60, pitches=2)
    played = np.array([(60, 0, 6, 10), (60, 2, 3, 90), (60, 2, 5, 20), (61, 1, 3, 30), (61, 1, 4, 30)], NOTE)
    assert paint(played, form, 7).symbols.tolist() == [[10, 128, 90, 0, 0, 0, 0], [0, 30, 128, 128, 0, 0, 0]]


def test_velocity_bins_by_hand() -> None:
    # four bins of 127: 1..31, 32..63, 64..95, 96..127
    assert velocity_to_bin(np.array([1, 31, 32, 63, 64, 95, 96, 127]), 4).tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert bin_to_velocity(np.arange(1, 5), 4).tolist() == [16, 48, 80, 112]
    assert bin_to_velocity(np.array([1, 2]), 2).tolist() == [32, 96]


@pytest.mark.parametrize(
    ("encoding", "alphabet", "hold"), [("binary", 2, None), ("velocity", 6, None), ("onset_hold", 7, 6)]
)
def test_alphabets_by_hand(encoding: str, alphabet: int, hold: int | None) -> None:
    form = RollFormat(encoding, velocity_bins=5, pitches=1)
    assert (form.alphabet, form.hold) == (alphabet, hold)
    assert Roll(np.array([[alphabet - 1]], np.uint8), form).steps == 1
    with pytest.raises(ValueError, match=f"symbol {alphabet} is outside"):
        Roll(np.array([[alphabet]], np.uint8), form)


def test_rows_are_pitches_from_the_lowest_up() -> None:
    form = RollFormat("onset_hold", velocity_bins=3, lowest_pitch=50, pitches=3)
    roll = Roll(np.array([[0, 0, 1, 4], [2, 4, 4, 0], [0, 3, 0, 3]], np.uint8), form)
    low, middle, high = bin_to_velocity(np.array([1, 2, 3]), 3).tolist()
    assert notes(roll).tolist() == [
        (51, 0, 3, middle),
        (52, 1, 2, high),
        (50, 2, 4, low),
        (52, 3, 4, high),
    ]


def test_statistics_of_uneven_music_by_hand() -> None:
    """Two steps a beat; the chord D4 F#4 for 3 steps, then D5 for 1, then 2 steps of silence, then G#4 for 1."""
    symbols = np.zeros((128, 9), np.uint8)
    symbols[[62, 66], 0], symbols[[62, 66], 1:3] = 30, 128
    symbols[74, 3], symbols[68, 6] = 60, 80
    found = statistics(Roll(symbols, RollFormat(steps_per_beat=2)), beats_per_bar=2)
    assert found["note_density"] == pytest.approx(4 / 4.5)
    assert found["polyphony"] == pytest.approx((2 + 2 + 2 + 1 + 1) / 5)
    assert found["pitch_range"] == 12
    assert found["pitch_classes_used"] == 3
    assert found["pitch_class_entropy"] == pytest.approx(0.5 * 1 + 2 * 0.25 * 2)
    assert found["scale_consistency"] == 1  # A major
    # bars of 4 steps: onsets at 0 and 3, then at 2: all three steps differ
    assert found["groove_consistency"] == pytest.approx(1 - 3 / 4)
    assert found["mean_velocity"] == pytest.approx((30 + 30 + 60 + 80) / 4)


def test_the_empty_beats_of_uneven_music() -> None:
    symbols = np.zeros((128, 20), np.uint8)
    symbols[60, [0, 13]] = 64
    found = statistics(Roll(symbols, RollFormat(steps_per_beat=4)))
    assert found["empty_beat_rate"] == pytest.approx(2 / 4)  # beats 1 and 2 of the four that end with the music
    assert math.isnan(found["groove_consistency"])


def test_the_phase_by_hand() -> None:
    # distances of up to an eighth of a step are close; of equally many, the phase that they are nearest to
    assert estimate_phase(np.array([0.25, 1.25, 2.375])) == 0.25
    assert estimate_phase(np.array([0.25, 1.375, 2.375])) == 0.375


def test_a_repeating_column_by_hand() -> None:
    independent = IndependentPitches(np.log([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]))
    model = RepeatOrRedraw(0.6, 0.3, {bytes([1, 0]): 1.0, bytes([2, 0]): 3.0}, independent, hold=2)
    roll = np.array([[1, 2, 2, 0], [0, 0, 1, 0]], np.uint8)
    # an onset becomes a hold; the third column is new to the training data, and the fourth carries nothing on
    first = 0.3 * 1 / 4 + 0.7 * 0.25 * 0.8
    held = 0.6 + 0.4 * (0.3 * 3 / 4 + 0.7 * 0.25 * 0.8)
    struck = 0.4 * 0.7 * 0.25 * 0.1
    silent = 0.4 * 0.7 * 0.5 * 0.8
    np.testing.assert_allclose(np.exp(-model.column_nats(roll)), [first, held, struck, silent])
    assert model.nats_per_step(roll) == pytest.approx(-math.log(first * held * struck * silent) / 4)


def em_by_hand(column: list[int], repeats: list[bool], starts: list[int], invented: list[float]) -> list[float]:
    """Weights of repeating, recalling and inventing after 100 rounds; column by column, without logarithms."""
    number, drawn = len(column), [0.0 if repeat else 1.0 for repeat in repeats]
    weights = [1 / 3] * 3
    for _ in range(100):
        used = [0.5] * 3
        shares = []
        for i in range(number):
            others = [drawn[j] for j in range(number) if j != i and column[j] == column[i]]
            recalled = sum(others) / (sum(drawn) - drawn[i])
            ways = [weights[0] * repeats[i], weights[1] * recalled, weights[2] * invented[i]]
            shares.append([way / sum(ways) for way in ways])
        for i in range(number):
            drawn[i] = 1.0 if i in starts else 1 - shares[i][0]
            if i not in starts:
                used = [sum(pair) for pair in zip(used, shares[i], strict=True)]
        weights = [part / sum(used) for part in used]
    return weights


def test_the_weights_of_the_baseline_against_a_plain_loop() -> None:
    rolls = [
        np.array([[1, 1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1, 0]], np.uint8),
        np.array([[1, 1, 1], [1, 0, 0]], np.uint8),
    ]
    model = RepeatOrRedraw.fit(rolls, 2)
    columns = [tuple(roll[:, step]) for roll in rolls for step in range(roll.shape[1])]
    repeats = [i not in (0, 7) and columns[i] == columns[i - 1] for i in range(10)]
    invented = [math.exp(-value) for roll in rolls for value in model.independent.column_nats(roll)]
    numbers = [columns.index(entry) for entry in columns]
    weights = em_by_hand(numbers, repeats, [0, 7], invented)
    assert model.repeat == pytest.approx(weights[0], rel=1e-4)
    assert model.recall == pytest.approx(weights[1] / (weights[1] + weights[2]), rel=1e-4)
    # the independent part is counted where columns change: 1, 0, 0, 1, 0, 1, 1 above and 0, 0, 1, 1, 0, 1, 0 below
    np.testing.assert_allclose(np.exp(model.independent.logp[:, 1]), [4.5 / 8, 3.5 / 8])


def test_a_last_track_without_events_belongs_to_a_whole_file(tmp_path: Path) -> None:
    path = write_midi(paint(np.array([(60, 0, 2, 64)], NOTE), RollFormat(), 3), tmp_path / "a.mid")
    data = path.read_bytes()
    tracks = int.from_bytes(data[10:12]) + 1
    path.write_bytes(data[:10] + tracks.to_bytes(2) + data[12:] + b"MTrk" + bytes(4))
    assert read_midi(path).symbols[60].tolist() == [64, 128, 0]
