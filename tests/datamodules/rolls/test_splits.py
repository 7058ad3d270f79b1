from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datamodules.rolls.cache import RollCache
from datamodules.rolls.splits import Splits, split_by_hash, split_by_lists

# Another result would move pieces between the splits of runs that exist.
RECORDED = ".....t..vt.v.v.."

NAMES = [f"{folder}/{number:03}.mid" for folder in ("train", "valid") for number in range(500)]


def cache_of(lengths: dict[str, int], errors: tuple[str, ...] = ()) -> RollCache:
    steps = np.array(list(lengths.values()))
    notes = np.zeros((len(steps), 128), np.int32)
    return RollCache(
        path=Path("/"),
        names=list(lengths),
        starts=np.cumsum(steps) - steps,
        steps=steps,
        notes=notes,
        errors=dict.fromkeys(errors, "?"),
    )


def test_hash_split_never_changes() -> None:
    splits = [split_by_hash(f"song{number}.mid", 0.3, 0.3) for number in range(16)]
    assert "".join({"train": ".", "val": "v", "test": "t"}[split] for split in splits) == RECORDED


def test_hash_split_has_the_shares_asked_for() -> None:
    counts = Counter(split_by_hash(name, 0.1, 0.2) for name in NAMES)
    assert abs(counts["val"] - 100) < 30
    assert abs(counts["test"] - 200) < 40


def test_a_larger_validation_share_keeps_the_test_pieces() -> None:
    small = {name for name in NAMES if split_by_hash(name, 0.1, 0.1) == "test"}
    assert small == {name for name in NAMES if split_by_hash(name, 0.3, 0.1) == "test"}


def test_lists_take_names_patterns_and_text_files(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("# mine\n\nvalid/001.mid\n  valid/002.mid \n")
    result = split_by_lists(NAMES, {"train": ["train/*"], "val": str(tmp_path / "val.txt"), "test": ["valid/003.mid"]})
    assert Counter(result.values()) == {"train": 500, "val": 2, "test": 1}
    assert "valid/000.mid" not in result


def test_lists_may_name_files_with_brackets() -> None:
    assert split_by_lists(["a[1].mid", "a1.mid"], {"train": ["a[1].mid"]}) == {"a[1].mid": "train"}


@pytest.mark.parametrize(
    ("lists", "error", "message"),
    [
        ({"train": ["train/999.mid"]}, ValueError, r"split_files: train/999\.mid \(train\) matches none of the pieces"),
        ({"val": ["other/*"]}, ValueError, r"split_files: other/\* \(val\) matches none"),
        ({"train": ["train/*"], "val": ["train/001.mid"]}, ValueError, "in both train and val; keep it in one"),
        ({"train": "nowhere.txt"}, FileNotFoundError, r"split_files: there is no text file nowhere\.txt"),
    ],
)
def test_lists_that_do_not_fit(lists: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split_by_lists(NAMES, lists)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-0.1, 0.1, None), "at least 0"),
        ((0.5, 0.5, None), "leave something to train on"),
        ((0.1, 0.1, {"valid": []}), "split_files: valid is not a split; the splits are train, val, test"),
    ],
)
def test_impossible_options(options: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Splits(*options)


def test_pieces_shorter_than_the_window_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("datamodules.rolls.splits.rank_zero_info", said.append)
    cache = cache_of({"a": 31, "b": 32, "c": 33})
    assert Splits(0, 0, {"train": ["*"]}).pieces(cache, "train", 32).tolist() == [1, 2]
    assert said == ["train: 1 of 3 pieces are shorter than a window (32 steps) and left out"]
    assert Splits(0, 0, {"train": ["*"]}).pieces(cache, "train", 31).tolist() == [0, 1, 2]
    assert len(said) == 1


def test_a_window_longer_than_every_piece_says_how_long_it_may_be() -> None:
    with pytest.raises(ValueError, match=r"window: 64 steps are more than any piece of the val split .* at most 33"):
        Splits(0, 0, {"val": ["*"]}).pieces(cache_of({"a": 31, "b": 33}), "val", 64)


def test_empty_splits_say_what_to_change() -> None:
    cache = cache_of({"a": 100}, errors=("broken",))
    with pytest.raises(ValueError, match=r"no piece of 1 is in the val split: raise val_fraction \(now 1e-09\)"):
        Splits(1e-9, 0, None).pieces(cache, "val", 4)
    with pytest.raises(ValueError, match="lower val_fraction or test_fraction"):
        Splits(1 - 1e-9, 0, None).pieces(cache, "train", 4)
    with pytest.raises(ValueError, match="list readable files for val in split_files"):
        Splits(0, 0, {"val": ["broken"]}).pieces(cache, "val", 4)
