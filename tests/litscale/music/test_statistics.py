"""Statistics of small rolls, counted by hand and by muspy."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import muspy
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from litscale.music import Roll, RollFormat, notes, statistics
from litscale.music.statistics import NAMES


def roll(cells: dict[tuple[int, int], int], steps: int, encoding: str = "onset_hold") -> Roll:
    symbols = np.zeros((128, steps), np.uint8)
    for (pitch, step), symbol in cells.items():
        symbols[pitch, step] = symbol
    return Roll(symbols, RollFormat(encoding))


def test_counted_by_hand() -> None:
    # C4 for two steps, E4 with its second step, C5 at step 12 of 40.
    found = statistics(roll({(60, 0): 40, (60, 1): 128, (64, 1): 60, (72, 12): 80}, 40))
    assert tuple(found) == NAMES
    assert found["note_density"] == pytest.approx(3 / 10)
    assert found["polyphony"] == pytest.approx(4 / 3)
    assert found["pitch_range"] == 12
    assert found["pitch_classes_used"] == 2
    assert found["pitch_class_entropy"] == pytest.approx(math.log2(3) - 2 / 3)
    assert found["scale_consistency"] == 1
    assert math.isnan(found["groove_consistency"])
    assert found["empty_beat_rate"] == pytest.approx(2 / 4)
    assert found["mean_velocity"] == 60


ROLLS = hnp.arrays(
    np.uint8, (128, 20), elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 70, 20, 128])
)


def just_shorter(played: np.ndarray) -> muspy.Music:
    """Notes in half steps that end half a step early, as muspy counts the beat and bar that begin where a note ends."""
    music = muspy.Music(resolution=8, tracks=[muspy.Track()])
    for pitch, start, end, velocity in played.tolist():
        music.tracks[0].append(muspy.Note(2 * start, pitch, 2 * (end - start) - 1, velocity))
    return music


@settings(deadline=None)
@given(ROLLS)
def test_muspy_agrees(symbols: np.ndarray) -> None:
    whole = Roll(symbols, RollFormat())
    played, ours = notes(whole), statistics(whole)
    assume(len(played))
    music = just_shorter(played)
    assert ours["empty_beat_rate"] == pytest.approx(muspy.empty_beat_rate(music))
    for note in music.tracks[0]:
        note.duration += 1
    assert ours["polyphony"] == pytest.approx(muspy.polyphony(music))
    assert ours["pitch_range"] == muspy.pitch_range(music)
    assert ours["pitch_classes_used"] == muspy.n_pitch_classes_used(music)
    assert ours["pitch_class_entropy"] == pytest.approx(muspy.pitch_class_entropy(music))
    assert ours["scale_consistency"] == pytest.approx(muspy.scale_consistency(music))


@settings(deadline=None)
@given(ROLLS, st.sampled_from([1, 2, 3]))
def test_muspy_agrees_on_the_groove(symbols: np.ndarray, quarters: int) -> None:
    whole = Roll(symbols, RollFormat(beats_per_bar=quarters))
    assume(len(notes(whole)))
    # Half of the half steps never have an onset, so that bars differ in half the share.
    theirs = muspy.groove_consistency(just_shorter(notes(whole)), 8 * quarters)
    assert statistics(whole)["groove_consistency"] == pytest.approx(2 * theirs - 1, nan_ok=True)


def test_groove_of_bars_with_two_of_sixteen_onsets_moved() -> None:
    found = statistics(roll({(60, 0): 64, (60, 8): 64, (60, 16): 64, (60, 28): 64}, 32))
    assert found["groove_consistency"] == pytest.approx(1 - 2 / 16)
    assert statistics(roll({(60, 0): 64, (60, 12): 64}, 24), beats_per_bar=3)["groove_consistency"] == 1


def waltz(bars: int) -> Roll:
    """Regular bars of 3/4: a note on each beat."""
    return roll({(60 + beat, 12 * bar + 4 * beat): 64 for bar in range(bars) for beat in range(3)}, 12 * bars)


def test_the_groove_of_a_regular_waltz() -> None:
    regular = waltz(8)
    in_three = Roll(regular.symbols, RollFormat(beats_per_bar=3))
    assert statistics(in_three)["groove_consistency"] == statistics(regular, 3)["groove_consistency"] == 1
    # Without the third beat, bars of 16 steps are no longer alike.
    uneven = {(60, 12 * bar + 4 * beat): 64 for bar in range(4) for beat in range(2)}
    assert statistics(Roll(roll(uneven, 48).symbols, RollFormat(beats_per_bar=3)))["groove_consistency"] == 1
    # Bars of 16: onsets 0 4 12, 0 8 12, 4 8; which differ in two steps, then in three.
    assert statistics(roll(uneven, 48))["groove_consistency"] == pytest.approx(1 - (2 + 3) / 32)


def test_bars_end_with_the_last_note() -> None:
    # A note that lasts to the bar line of the second of two equal bars: no third, empty bar is compared.
    cells = {(60, 0): 64, (60, 16): 64} | {(60, 16 + step): 128 for step in range(1, 16)}
    assert statistics(roll(cells, 32))["groove_consistency"] == 1
    assert math.isnan(statistics(roll({(60, 0): 64, (60, 15): 64}, 32))["groove_consistency"])


def test_bars_that_end_within_a_beat_or_a_step() -> None:
    # 7/8 on sixteenths: bars of 14 steps.
    cells = {(60, start): 64 for start in (0, 6, 14, 20, 28, 34)}
    assert statistics(roll(cells, 42), 3.5)["groove_consistency"] == 1
    assert statistics(roll(cells, 42))["groove_consistency"] < 1
    coarse = Roll(roll(cells, 42).symbols, RollFormat(steps_per_beat=1, beats_per_bar=3.5))
    assert math.isnan(statistics(coarse)["groove_consistency"])


def test_a_note_outside_of_every_scale() -> None:
    chromatic = roll({(60 + index, index): 64 for index in range(12)}, 12)
    assert statistics(chromatic)["scale_consistency"] == pytest.approx(7 / 12)
    assert statistics(chromatic)["pitch_class_entropy"] == pytest.approx(math.log2(12))


@pytest.mark.parametrize("steps", [0, 16])
def test_silence(steps: int) -> None:
    found = statistics(roll({}, steps))
    assert found.pop("pitch_classes_used") == 0
    density = found.pop("note_density")
    assert density == 0 if steps else math.isnan(density)
    assert all(math.isnan(value) for value in found.values())


def test_binary_rolls_have_no_velocity() -> None:
    found = statistics(roll({(60, 0): 1, (60, 1): 1, (67, 3): 1}, 4, "binary"))
    assert math.isnan(found["mean_velocity"])
    assert found["note_density"] == 2


def test_beats_per_bar_must_be_positive() -> None:
    with pytest.raises(ValueError, match="beats_per_bar"):
        statistics(roll({}, 4), beats_per_bar=0)
