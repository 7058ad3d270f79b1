"""What is written around a picture, and where, by the ink in the margins."""

from __future__ import annotations

import numpy as np

from litscale.music import Roll, RollFormat, picture
from litscale.music.pictures import BAR_LINE, BOTTOM, GIVEN_LOUD, GIVEN_SOFT, LEFT, PAPER, RIGHT, TOP, _colours

FORM = RollFormat("binary", lowest_pitch=47, pitches=15)


def silent(steps: int, form: RollFormat = FORM) -> Roll:
    return Roll(np.zeros((form.pitches, steps), np.uint8), form)


def spots(line: np.ndarray, gap: int = 8) -> list[int]:
    """Where the pieces of a bool line start that are at least ``gap`` apart."""
    marked = np.flatnonzero(line)
    return [int(at) for i, at in enumerate(marked) if i == 0 or at - marked[i - 1] >= gap]


def ink(part: np.ndarray, axis: int) -> np.ndarray:
    return (part != PAPER).any(axis=2).any(axis=axis)


def test_every_bar_has_its_number() -> None:
    """Three bars of three beats and a part of a fourth: 96 pixels each."""
    top = picture(silent(40), beats_per_bar=3)[:TOP, LEFT:]
    found = spots(ink(top, 0), 20)
    assert len(found) == 4
    assert all(0 <= at - 96 * bar <= 5 for bar, at in enumerate(found))


def test_numbers_that_would_run_into_each_other_are_left_out() -> None:
    """Bars of 4 * 2 pixels: every fourth has a number, 32 pixels from the last one."""
    top = picture(silent(32), beats_per_bar=1, cell=(6, 2))[:TOP, LEFT:]
    found = spots(ink(top, 0), 12)
    assert len(found) == 2
    assert all(0 <= at - 32 * bar <= 5 for bar, at in enumerate(found))


def test_bar_lines_stand_at_bars() -> None:
    page = picture(silent(40), beats_per_bar=3)
    row = page[TOP + 2, LEFT : page.shape[1] - RIGHT]
    assert np.flatnonzero((row == BAR_LINE).all(axis=1)).tolist() == [0, 96, 192, 288]


def test_each_c_is_named_beside_its_row() -> None:
    """Rows 1 and 13 of 15 are C3 and C4."""
    page = picture(silent(8))
    left = page[TOP - 4 : page.shape[0] - BOTTOM + 4, : LEFT - 1]
    found = spots(ink(left, 1), 20)
    centres = [page.shape[0] - BOTTOM - (row + 0.5) * 6 - (TOP - 4) for row in (13, 1)]
    assert len(found) == 2
    assert all(0 < centre - at < 10 for at, centre in zip(found, centres, strict=True))


def test_the_scale_of_velocities_runs_from_loud_to_soft() -> None:
    form = RollFormat("velocity", pitches=128)
    page = picture(silent(8, form))
    scale = page[TOP : TOP + 127, page.shape[1] - RIGHT + 10 : page.shape[1] - RIGHT + 18]
    assert (scale == scale[:, :1]).all()
    np.testing.assert_array_equal(scale[:, 0], _colours(np.arange(127, 0, -1)).astype(np.uint8))
    assert not ink(picture(silent(8))[:, -RIGHT + 2 :], 0).any()  # a binary roll has none
    inside = slice(LEFT, page.shape[1] - RIGHT)
    np.testing.assert_array_equal(page[:, inside], picture(silent(8, RollFormat("binary")))[:, inside])
    written = spots(ink(page[:, page.shape[1] - RIGHT + 20 :], 1))
    assert len(written) == 3  # 127, vel. and 1
    assert all(abs(at - (TOP + place)) <= 8 for at, place in zip(written, (0, 60, 119), strict=True))
    loud, soft = _colours(np.array([127, 1]))
    assert loud.sum() < soft.sum()


def test_grey_and_colour_follow_the_velocity() -> None:
    form = RollFormat("velocity", lowest_pitch=61, pitches=1)
    roll = Roll(np.array([[0, 127, 40, 0]], np.uint8), form)
    plain, given = (picture(roll, known=known) for known in (None, np.ones((1, 4), bool)))
    for step, velocity in ((1, 127), (2, 40)):
        at = (TOP + 2, LEFT + step * 8 + 4)
        assert plain[at].tolist() == _colours(np.array([velocity]))[0].astype(np.uint8).tolist()
        grey = GIVEN_SOFT + (GIVEN_LOUD - GIVEN_SOFT) * velocity / 127
        assert given[at].tolist() == grey.astype(np.uint8).tolist()
