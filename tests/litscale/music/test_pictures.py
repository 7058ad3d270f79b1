"""Pictures have the right size and show what is in the roll."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litscale.music import Roll, RollFormat, animation, picture
from litscale.music.pictures import BAR_LINE, BEAT_LINE, BOTTOM, LEFT, RIGHT, TOP

PIANO = RollFormat().cropped(21, 108)


def some_roll(form: RollFormat = PIANO, steps: int = 32) -> Roll:
    symbols = np.zeros((form.pitches, steps), np.uint8)
    symbols[40, 4:8] = [100, 128, 128, 128]
    symbols[45, 8:10] = [20, 128]
    return Roll(symbols, form)


def cell(image: np.ndarray, row: int, step: int, height: int = 6, width: int = 8) -> np.ndarray:
    """The pixels of one cell, off its lines."""
    top, left = image.shape[0] - BOTTOM - (row + 1) * height, LEFT + step * width
    return image[top + 1 : top + height - 1, left + 2 : left + width - 1].reshape(-1, 3)


def test_size() -> None:
    assert picture(some_roll()).shape == (TOP + 88 * 6 + BOTTOM, LEFT + 32 * 8 + RIGHT, 3)
    assert picture(some_roll(), cell=(3, 5)).shape == (TOP + 88 * 3 + BOTTOM, LEFT + 32 * 5 + RIGHT, 3)
    assert picture(some_roll(steps=1024)).shape[1] == LEFT + 1024 * 2 + RIGHT
    empty = picture(Roll(np.zeros((88, 0), np.uint8), PIANO))
    assert empty.dtype == np.uint8
    assert empty.shape == (TOP + 88 * 6 + BOTTOM, LEFT + 8 + RIGHT, 3)


@pytest.mark.parametrize("encoding", ["binary", "velocity", "onset_hold"])
@pytest.mark.parametrize("pitches", [1, 12, 128])
def test_every_format_can_be_drawn(encoding: str, pitches: int) -> None:
    roll = Roll(np.ones((pitches, 20), np.uint8), RollFormat(encoding, pitches=pitches))
    for size in [(1, 1), (2, 3), None]:
        assert picture(roll, cell=size).ndim == 3


def test_notes_are_where_they_should_be() -> None:
    image, silent = picture(some_roll()), picture(Roll(np.zeros((88, 32), np.uint8), PIANO))
    changed = {
        (row, step)
        for row in range(88)
        for step in range(32)
        if (cell(image, row, step) != cell(silent, row, step)).any()
    }
    assert changed == {(40, 4), (40, 5), (40, 6), (40, 7), (45, 8), (45, 9)}


def test_onsets_and_velocities_show() -> None:
    image = picture(some_roll())
    onset, hold, soft = cell(image, 40, 4)[0], cell(image, 40, 5)[0], cell(image, 45, 8)[0]
    assert onset.sum() < hold.sum()
    assert (onset != soft).any()
    struck = some_roll()
    struck.symbols[40, 6] = 100
    assert (picture(struck) != image).any()


def test_the_scale_of_velocities_is_drawn_where_there_are_several() -> None:
    def margin(bins: int) -> np.ndarray:
        form = RollFormat(velocity_bins=bins, lowest_pitch=21, pitches=88)
        return picture(Roll(np.zeros((88, 32), np.uint8), form))[:, -RIGHT:]

    assert (margin(1) == 255).all()
    assert (margin(2) != 255).any()


def test_given_cells_are_grey() -> None:
    known = np.zeros((88, 32), bool)
    known[:, :6] = True
    image = picture(some_roll(), known=known)
    for step, grey in [(4, True), (5, True), (6, False), (7, False)]:
        assert (np.ptp(cell(image, 40, step)[0].astype(int)) < 25) == grey
    assert (cell(image, 10, 3) != cell(image, 10, 7)).any()


def test_unknown_cells_hide_their_notes() -> None:
    unknown = np.zeros((88, 32), bool)
    unknown[:, 4:] = True
    with_notes = picture(some_roll(), unknown=unknown)
    without = picture(Roll(np.zeros((88, 32), np.uint8), PIANO), unknown=unknown)
    np.testing.assert_array_equal(with_notes, without)
    assert (with_notes != picture(some_roll())).any()


def test_bar_lines_follow_the_metre() -> None:
    assert (picture(some_roll(), beats_per_bar=3) != picture(some_roll(), beats_per_bar=4)).any()


@pytest.mark.parametrize(
    ("steps_per_beat", "beats_per_bar", "bars", "beats"),
    [
        (4, 4, [0, 16], [0, 4, 8, 12, 16, 20, 24, 28]),
        (4, 3, [0, 12, 24], [0, 4, 8, 12, 16, 20, 24, 28]),
        (4, 3.5, [0, 14, 28], [0, 4, 8, 12, 14, 18, 22, 26, 28]),
        (1, 3.5, [0, 4, 7, 11, 14, 18, 21, 25, 28], list(range(32))),
    ],
)
def test_where_lines_are(steps_per_beat: int, beats_per_bar: float, bars: list[int], beats: list[int]) -> None:
    form = RollFormat(steps_per_beat=steps_per_beat, beats_per_bar=beats_per_bar)
    image = picture(Roll(np.zeros((128, 32), np.uint8), form), cell=(6, 8))
    row = image[TOP + 2, LEFT : LEFT + 32 * 8]
    assert [x // 8 for x in np.flatnonzero((row == BAR_LINE).all(axis=1))] == bars
    assert [x // 8 for x in np.flatnonzero((row <= BEAT_LINE).all(axis=1))] == beats
    plain = Roll(np.zeros((128, 32), np.uint8), RollFormat(steps_per_beat=steps_per_beat))
    np.testing.assert_array_equal(picture(plain, cell=(6, 8), beats_per_bar=beats_per_bar), image)


def test_png_holds_the_picture(tmp_path: Path) -> None:
    image = picture(some_roll(), tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_animation(tmp_path: Path) -> None:
    final = some_roll().symbols
    unknown = [np.tile(np.arange(32) >= edge, (88, 1)) for edge in (0, 6, 9, 32)]
    frames = [np.where(mask, 0, final).astype(np.uint8) for mask in unknown]
    path = animation(frames, tmp_path / "a.gif", PIANO, unknown=unknown, seconds=0.1, pause=1.0)
    with Image.open(path) as gif:
        assert gif.n_frames == 4
        shown = []
        for index in range(4):
            gif.seek(index)
            shown.append(np.asarray(gif.convert("RGB")).astype(int))
            assert gif.info["duration"] == (1000 if index == 3 else 100)
    assert shown[0].shape == picture(some_roll()).shape
    assert all((one != other).any() for one, other in pairwise(shown))
    assert np.abs(shown[-1] - picture(some_roll())).mean() < 3


def test_a_picture_takes_less_than_half_a_second() -> None:
    rng = np.random.default_rng(0)
    roll = Roll((rng.integers(1, 128, (88, 128)) * (rng.random((88, 128)) < 0.1)).astype(np.uint8), PIANO)
    picture(roll)
    before = time.process_time()
    picture(roll)
    assert time.process_time() - before < 0.5


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"known has shape \(2, 2\)"):
        picture(some_roll(), known=np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="at least 1"):
        picture(some_roll(), beats_per_bar=0)
    with pytest.raises(ValueError, match="no frames"):
        animation([], tmp_path / "a.gif", PIANO)
    with pytest.raises(ValueError, match="1 frames, but 0 masks"):
        animation([some_roll().symbols], tmp_path / "a.gif", PIANO, unknown=[])
    assert not list(tmp_path.iterdir())
