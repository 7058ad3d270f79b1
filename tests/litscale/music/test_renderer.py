"""Symbols in, files out, without knowing music."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litscale.music import MidiError, Roll, RollFormat, RollRenderer, read_midi, write_midi

PIANO = RollFormat(velocity_bins=8).cropped(21, 108)
SONG = Path(__file__).parents[2] / "data" / "pop909" / "151.mid"


@pytest.fixture
def symbols() -> np.ndarray:
    return RollRenderer(PIANO).read(SONG)[:, :, 100:164]


def test_read_crops_to_the_pitches_of_the_format() -> None:
    symbols = RollRenderer(PIANO).read(SONG)
    assert symbols.shape[:2] == (1, 88)
    np.testing.assert_array_equal(symbols[0], read_midi(SONG, velocity_bins=8).symbols[21:109])


def test_read_names_notes_outside_and_the_option(tmp_path: Path) -> None:
    whole = np.zeros((128, 8), np.uint8)
    whole[[10, 11, 60, 120], 2] = 5
    path = write_midi(Roll(whole), tmp_path / "wide.mid")
    with pytest.raises(MidiError, match=r"wide\.mid: 3 notes are outside .* 21 to 108; .*pitch_range .*10 to 120"):
        RollRenderer(PIANO).read(path)


def test_read_what_was_saved(symbols: np.ndarray, tmp_path: Path) -> None:
    renderer = RollRenderer(PIANO)
    # The window may begin within a note, which is written as one that starts there.
    symbols[(symbols == 9) & (np.arange(64) == 0)] = 5
    paths = renderer.save(symbols, tmp_path / "sample")
    np.testing.assert_array_equal(renderer.read(paths[0]), symbols)


def test_the_meter_is_drawn_counted_and_written(tmp_path: Path) -> None:
    symbols = np.zeros((1, 88, 36), np.uint8)
    symbols[0, 30, [0, 8, 12, 20, 24, 32]] = 3
    in_three, stated = RollRenderer(PIANO, beats_per_bar=3), RollRenderer(replace(PIANO, beats_per_bar=3))
    assert in_three.format == stated.format
    assert stated.beats_per_bar == 3
    assert (
        in_three.statistics(symbols)["groove_consistency"]
        == 1
        > RollRenderer(PIANO).statistics(symbols)["groove_consistency"]
    )
    np.testing.assert_array_equal(in_three.picture(symbols), stated.picture(symbols))
    assert (in_three.picture(symbols) != RollRenderer(PIANO).picture(symbols)).any()
    mid, _, gif = in_three.save(symbols, tmp_path / "a", frames=[symbols])
    assert read_midi(mid).format.beats_per_bar == 3
    with Image.open(gif) as shown:
        assert np.abs(np.asarray(shown.convert("RGB")).astype(int) - in_three.picture(symbols)).mean() < 3


def test_save_writes_what_is_asked_for(symbols: np.ndarray, tmp_path: Path) -> None:
    renderer, known = RollRenderer(PIANO), np.zeros(symbols.shape, bool)
    known[..., :32] = True
    stem = tmp_path / "temperature_0.9"
    assert renderer.save(symbols, stem, known=known) == [Path(f"{stem}.mid"), Path(f"{stem}.png")]
    paths = renderer.save(
        symbols,
        str(stem),
        known=known,
        frames=[symbols * known, symbols],
        wav=True,
        unknown=[~known, ~known & False],
        score=True,
    )
    assert [path.name for path in paths] == [f"temperature_0.9.{kind}" for kind in ("mid", "png", "gif", "wav", "svg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), renderer.picture(symbols, known))
    with Image.open(paths[2]) as gif:
        assert gif.n_frames == 2


def test_picture_takes_masks_with_and_without_channel(symbols: np.ndarray) -> None:
    renderer, known = RollRenderer(PIANO), np.ones(symbols.shape, bool)
    given = renderer.picture(symbols, known)
    np.testing.assert_array_equal(given, renderer.picture(symbols, known[0]))
    assert (given != renderer.picture(symbols)).any()


def test_audio_and_statistics(symbols: np.ndarray) -> None:
    renderer = RollRenderer(PIANO)
    samples, rate = renderer.audio(symbols)
    assert samples.dtype == np.float32
    assert len(samples) / rate == pytest.approx(64 * 0.125 + 0.3, abs=1e-3)
    assert renderer.statistics(symbols)["note_density"] > 0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((88, 4), np.uint8),
        np.zeros((3, 88, 4), np.uint8),
        np.zeros((1, 88, 4)),
        np.full((1, 88, 4), 10, np.uint8),
    ],
)
def test_symbols_that_are_no_roll(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"symbol"):
        RollRenderer(PIANO).picture(bad)
