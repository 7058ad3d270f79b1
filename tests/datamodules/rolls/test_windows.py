from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.rolls.cache import RollCache, build_cache
from datamodules.rolls.windows import ConsecutiveWindows, Pieces, RandomCrops
from litscale import music
from litscale.music.roll import Roll, RollFormat

WINDOW, LOW, ROWS = 8, 40, 24


def roll_of(name: str) -> Roll:
    """Random notes on four pitches of the canvas, and one below it."""
    steps = int(name)
    random = np.random.default_rng(steps)
    symbols = np.zeros((128, steps), np.uint8)
    for pitch in (50, 53, 55, 57, 30):
        symbols[pitch] = np.where(random.random(steps) < 0.4, random.integers(1, 128, steps), 0)
    return Roll(symbols)


@pytest.fixture
def cache(tmp_path: Path) -> RollCache:
    return build_cache(tmp_path / "cache", ["20", "40", "80"], roll_of, "pieces")


@pytest.fixture
def pieces(cache: RollCache) -> Pieces:
    return Pieces(cache, np.arange(3), window=WINDOW, low=LOW, rows=ROWS, labels=[2, 0, 1])


def test_items_have_the_types_of_a_batch(pieces: Pieces) -> None:
    item = RandomCrops(pieces, 10, seed=0)[(0, 0)]
    assert item["canvas"].dtype == torch.uint8
    assert item["canvas"].shape == (1, ROWS, WINDOW)
    assert item["label"].dtype == torch.int64
    assert item["label"].shape == ()
    pieces.labels = None
    assert set(RandomCrops(pieces, 10, seed=0)[(0, 0)]) == {"canvas", "start"}
    assert (item["start"].dtype, item["start"].shape) == (torch.int64, ())


def test_items_depend_on_seed_epoch_and_index_alone(pieces: Pieces) -> None:
    def canvases(seed: int, epoch: int) -> list[bytes]:
        data = RandomCrops(pieces, 64, seed, transpose=3)
        return [data[(epoch, index)]["canvas"].numpy().tobytes() for index in range(64)]

    first = canvases(0, 0)
    assert canvases(0, 0) == first
    assert len({*first}) > 32
    for other in (canvases(1, 0), canvases(0, 1)):
        assert sum(a == b for a, b in zip(first, other, strict=True)) < 16


def test_pieces_are_drawn_in_proportion_to_length(pieces: Pieces) -> None:
    data = RandomCrops(pieces, 4000, seed=0)
    labels = np.bincount([int(data[(0, index)]["label"]) for index in range(4000)])
    # label -> steps: 2 -> 20, 0 -> 40, 1 -> 80
    assert np.abs(labels / 4000 - np.array([40, 80, 20]) / 140).max() < 0.03


def test_crops_reach_both_ends(cache: RollCache) -> None:
    data = RandomCrops(Pieces(cache, np.array([0]), window=WINDOW, low=0, rows=128), 400, seed=0)
    crops = {data[(0, index)]["canvas"].numpy().tobytes() for index in range(400)}
    whole = roll_of("20").symbols
    assert {np.ascontiguousarray(whole[:, start : start + WINDOW]).tobytes() for start in range(13)} == crops


def test_transposition_moves_all_notes_alike_and_loses_none(pieces: Pieces) -> None:
    plain, moved = RandomCrops(pieces, 300, seed=0), RandomCrops(pieces, 300, seed=0, transpose=12)
    shifts = set()
    for index in range(300):
        before, after = (data[(0, index)]["canvas"][0].numpy() for data in (plain, moved))
        if not before.any():
            assert not after.any()
            continue
        shift = int(np.flatnonzero(after.any(axis=1))[0] - np.flatnonzero(before.any(axis=1))[0])
        shifts.add(shift)
        assert np.array_equal(np.roll(before, shift, axis=0), after)
        form = RollFormat(lowest_pitch=LOW, pitches=ROWS)
        assert len(music.notes(Roll(before, form))) == len(music.notes(Roll(after, form)))
    # Rows 10 to 17 of 24 sound: never more than 10 down, 6 up if all pitches sound.
    assert {-10, 6} <= shifts
    assert min(shifts) >= -12
    assert max(shifts) <= 12


def test_no_room_means_no_transposition(cache: RollCache) -> None:
    tight = Pieces(cache, np.array([2]), window=80, low=50, rows=8)  # just the pitches that sound
    data = RandomCrops(tight, 10, seed=0, transpose=12)
    for index in range(10):
        assert np.array_equal(data[(0, index)]["canvas"][0].numpy(), roll_of("80").symbols[50:58])


def test_a_bare_index_is_the_first_epoch(pieces: Pieces) -> None:
    data = RandomCrops(pieces, 10, seed=0)
    assert torch.equal(data[7]["canvas"], data[(0, 7)]["canvas"])


def test_fixed_windows_lie_side_by_side(pieces: Pieces) -> None:
    data = ConsecutiveWindows(pieces)
    assert len(data) == 2 + 5 + 10  # four steps of the first piece remain
    expected = [
        roll_of(name).symbols[LOW : LOW + ROWS, start : start + WINDOW]
        for name in ("20", "40", "80")
        for start in range(0, int(name) - WINDOW + 1, WINDOW)
    ]
    for index, symbols in enumerate(expected):
        assert np.array_equal(data[index]["canvas"][0].numpy(), symbols)
    assert [int(data[index]["label"]) for index in (0, 1, 2, 6, 7, 16)] == [2, 2, 0, 0, 1, 1]
