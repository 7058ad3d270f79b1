"""The JSB benchmark's file, on tiny files of our own; the published one is not part of litscale."""

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules import JSBChorales, PianoRollDataModule
from litscale.music.roll import RollFormat

BINARY = RollFormat("binary", velocity_bins=1)


def chorale(steps: int, seed: int) -> list[list[int]]:
    """Four voices, two of them at times in unison, with a rest now and then, within 45..70."""
    random = np.random.default_rng(seed)
    chords = random.integers(45, 71, (steps // 4, 4))
    chords[::3, 1] = chords[::3, 2]
    chords[1::5, 3] = -1
    return np.repeat(chords, 4, axis=0).tolist()


def write(folder: Path, **splits: object) -> Path:
    path = folder / "jsb.json"
    path.write_text(json.dumps(splits))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three, two and one pieces of unequal lengths."""
    return write(
        tmp_path,
        train=[chorale(20, 0), chorale(36, 1), chorale(28, 2)],
        valid=[chorale(24, 3), chorale(32, 4)],
        test=[chorale(40, 5)],
    )


def data(path: Path, **options: object) -> PianoRollDataModule:
    defaults = {"encoding": "binary", "velocity_bins": 1, "pitch_range": (36, 83), "window": 16, "batch_size": 2}
    source = JSBChorales(str(path))
    module = PianoRollDataModule(source=source, cache_dir=str(path.parent / "cache"), **{**defaults, **options})
    module.prepare_data()
    return module


def test_pieces_become_what_sounds(tmp_path: Path) -> None:
    piece = [[72, 67, 64, 48], [72, 67, 67, -1], [-1, -1, -1, -1], [81, 67, 60, 36]]
    source = JSBChorales(str(write(tmp_path, train=[chorale(8, 0), piece], valid=[])))
    assert source.names() == ["train/0", "train/1"]
    roll = source.read("train/1", BINARY)
    assert roll.symbols.dtype == np.uint8
    sounding = [sorted(np.flatnonzero(column).tolist()) for column in roll.symbols.T]
    assert sounding == [[48, 64, 67, 72], [67, 72], [], [36, 60, 67, 81]]
    assert source.voices == 4


def test_splits_are_the_files(small: Path) -> None:
    module = data(small)
    module.setup("fit")
    module.setup("test")
    lengths = {split: [roll.shape[1] for roll in module.rolls(split)] for split in ("train", "val", "test")}
    assert lengths == {"train": [20, 36, 28], "val": [24, 32], "test": [40]}


def test_lists_win_over_the_files_splits(small: Path) -> None:
    module = data(small, split_files={"train": ["valid/*"], "val": ["train/1"]})
    module.setup("fit")
    assert [roll.shape[1] for roll in module.rolls("train")] == [24, 32]
    assert [roll.shape[1] for roll in module.rolls("val")] == [36]


def test_without_a_test_split(tmp_path: Path) -> None:
    module = data(write(tmp_path, train=[chorale(20, 0)], valid=[chorale(16, 1)]))
    module.setup("fit")
    with pytest.raises(
        ValueError, match=r"published without a test split: run litscale validate, or list pieces for test in"
    ):
        module.setup("test")


def test_crops_are_transposed_over_the_whole_range(small: Path) -> None:
    module = data(small, transpose=127, samples_per_epoch=400)
    module.setup("fit")
    plain = {roll.tobytes() for piece in module.rolls("train") for roll in crops_of(piece)}
    lowest, highest, shifts = 48, 0, set()
    for batch in module.train_dataloader():
        for canvas in batch["canvas"].numpy():
            rows = np.flatnonzero(canvas[0].any(axis=1))
            lowest, highest = min(lowest, rows[0]), max(highest, rows[-1])
            up = {shift for shift in range(-rows[0], 48 - rows[-1]) if np.roll(canvas[0], shift, 0).tobytes() in plain}
            assert up  # nothing but a transposition
            shifts |= up
    assert (lowest, highest) == (0, 47)
    assert len(shifts) > 20


def crops_of(piece: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(piece[:, start : start + 16]) for start in range(piece.shape[1] - 15)]


def test_items_say_where_they_begin(small: Path) -> None:
    module = data(small, samples_per_epoch=50)
    module.setup("fit")
    pieces = list(module.rolls("train"))
    for batch in module.train_dataloader():
        for canvas, start in zip(batch["canvas"].numpy(), batch["start"].tolist(), strict=True):
            assert any(np.array_equal(canvas[0], piece[:, start : start + 16]) for piece in pieces)
    assert [start for batch in module.val_dataloader() for start in batch["start"].tolist()] == [0, 0, 16]


@pytest.mark.parametrize("options", [{"encoding": "onset_hold"}, {"steps_per_beat": 2}])
def test_only_binary_sixteenths(small: Path, options: dict) -> None:
    with pytest.raises(ValueError, match="set encoding to binary and steps_per_beat to 4"):
        data(small, **options)


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*jsb\.json; get Jsb16thSeparated\.json from https://github"):
        data(tmp_path / "jsb.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"jsb\.json: damaged, or no JSON"),
        ("[1, 2]", "no lists named train and valid"),
        ('{"train": [], "val": []}', "no lists named train and valid"),
        ('{"train": [], "valid": [], "test": "valid"}', "no list of pieces named test, but 'valid'"),
    ],
)
def test_a_file_that_is_another(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "jsb.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        data(tmp_path / "jsb.json")


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ([[60, 64, 67, 72], [60, 64, 67]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, 67]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, 67.5, 72]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, None, 72]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, "67", 72]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, 10**400, 72]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, float("nan"), 72]], "valid/1 is not a list of steps of 4 whole numbers"),
        ([], "valid/1 is not a list of steps of 4 whole numbers"),
        (None, "valid/1 is not a list of steps of 4 whole numbers"),
        ([[60, 64, 67, 72], [60, 64, 35, 72]], r"valid/1 has the pitch 35 at step 1, which is not in 36\.\.81"),
    ],
)
def test_a_damaged_piece_is_an_error_and_not_left_out(tmp_path: Path, piece: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(write(tmp_path, train=[chorale(20, 0)], valid=[chorale(16, 1), piece]))
    assert not list((tmp_path / "cache").glob("*"))
