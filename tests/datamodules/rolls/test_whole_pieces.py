"""Evaluation goes through whole pieces, counting each step once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import PianoRollDataModule, RollEvaluation
from datamodules.rolls.cache import RollCache
from datamodules.rolls.whole_pieces import WholePieces
from datamodules.rolls.windows import ConsecutiveWindows, Pieces

LENGTHS = [3, 8, 9, 16, 21, 33, 40]
WINDOW, ROWS = 8, 5


@pytest.fixture
def pieces() -> Pieces:
    """Pieces of unequal lengths, the first shorter than a window, in random symbols."""
    steps = np.array(LENGTHS)
    symbols = np.random.default_rng(0).integers(1, 9, (steps.sum(), 128)).astype(np.uint8)  # never silent
    notes = np.zeros((len(steps), 128), np.int32)
    cache = RollCache(
        path=Path("/"),
        names=[*"abcdefg"],
        starts=np.cumsum(steps) - steps,
        steps=steps,
        notes=notes,
        errors={},
        _symbols=symbols,
    )
    return Pieces(cache, np.array([5, 0, 1, 2, 3, 4, 6]), window=WINDOW, low=40, rows=ROWS)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_each_step_counts_once_with_the_longest_past(pieces: Pieces, stride: int) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    data = WholePieces(pieces, stride)
    windows = [(data._which[i], data[i]) for i in range(len(data))]
    for which, item in windows:
        start, length = int(item["start"]), int(pieces.lengths[which])
        canvas = item["canvas"][0].numpy()
        assert canvas.shape == (ROWS, WINDOW)
        for step in range(WINDOW):
            whole = pieces.cache._symbols[pieces.cache.starts[pieces.chosen[which]] :]
            wanted = whole[start + step, 40 : 40 + ROWS] if start + step < length else 0
            assert (canvas[:, step] == wanted).all()
            if item["counted"][step]:
                seen[which, start + step] += 1
                assert step >= min(start + step, WINDOW - stride)
    assert seen == Counter({(w, step): 1 for w, n in enumerate(pieces.lengths) for step in range(n)})
    beside = torch.stack([item["canvas"] for _, item in windows if item["side_by_side"]])
    pieces.chosen = pieces.chosen[pieces.lengths >= WINDOW]
    plain = ConsecutiveWindows(pieces)
    assert torch.equal(beside, torch.stack([plain[i]["canvas"] for i in range(len(plain))]))


def test_no_window_lies_behind_the_end(pieces: Pieces) -> None:
    data = WholePieces(pieces, 4)
    counts = np.bincount(data._which)
    # a window and one more for each four steps beyond it, begun or whole
    assert dict(zip(pieces.lengths.tolist(), counts.tolist(), strict=True)) == {
        33: 8,
        3: 1,
        8: 1,
        9: 2,
        16: 3,
        21: 5,
        40: 9,
    }
    assert data.fingerprint() != WholePieces(pieces, 2).fingerprint()


@pytest.mark.parametrize("stride", [-4, 0, 5, 16, 24])
def test_a_stride_divides_the_window(tmp_path: Path, stride: int) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.stride must divide the window of 24 steps"):
        PianoRollDataModule(str(tmp_path), window=24, evaluation=RollEvaluation(stride))
    PianoRollDataModule(str(tmp_path), window=24, evaluation=RollEvaluation(12))


def test_short_pieces_are_evaluated_but_not_trained_on(module, tmp_path: Path, write_song) -> None:
    songs = tmp_path / "songs"
    for name, steps in (("train/a", 12), ("train/b", 30), ("val/a", 10), ("val/b", 40)):
        write_song(songs / f"{name}.mid", steps)
    lists = {"train": ["train/*"], "val": ["val/*"]}
    dm = module(split_files=lists, window=16, evaluation=RollEvaluation(8), batch_size=1)
    dm.prepare_data()
    dm.setup("fit")
    assert [roll.shape[1] for roll in dm.rolls("train")] == [30]
    assert [roll.shape[1] for roll in dm.rolls("val")] == [10, 40]
    counted = sum(int(batch["counted"].sum()) for batch in dm.val_dataloader())
    assert counted == 50
