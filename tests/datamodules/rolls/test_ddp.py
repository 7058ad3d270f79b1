import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from data_recorder import flat
from rank_runs import two_ranks

from datamodules import PianoRollDataModule


def test_two_ranks(songs: Path, tmp_path: Path, module: Callable[..., PianoRollDataModule]) -> None:
    """One run for all questions, as starting two processes takes most of its time."""
    script = Path(__file__).with_name("two_ranks.py")
    ranks, _ = two_ranks(script, tmp_path, songs, tmp_path / "cache")

    alone = module(samples_per_epoch=13, split_files={"train": ["a/*"], "val": ["b/01.mid", "b/03.mid"]})
    alone.prepare_data()
    alone.setup("fit")

    # Training: rank r takes the indices r, r + 2, ... of 12, the same items as one process.
    data = alone.train_dataloader().dataset
    expected = [zlib.crc32(data[(0, index)]["canvas"].numpy().tobytes()) for index in range(12)]
    for rank in (0, 1):
        assert flat(ranks[rank]["train"]) == expected[rank::2]

    # Validation: nine windows, each once, and the mean over ranks is the mean over windows.
    data = alone.val_dataloader().dataset
    expected = [zlib.crc32(data[index]["canvas"].numpy().tobytes()) for index in range(9)]
    assert [[len(batch) for batch in ranks[rank]["val"]] for rank in (0, 1)] == [[2, 2, 1], [2, 2]]
    for rank in (0, 1):
        assert flat(ranks[rank]["val"]) == expected[rank::2]
        assert ranks[rank]["mean"] == pytest.approx(sum(expected) / 9, rel=1e-5)

    # Prediction: batches (seed, samples) are the same as on one rank; a rank may have none.
    assert [rank["predict 5"] for rank in ranks] == [[[10, 0, 1], [10, 4]], [[10, 2, 3]]]
    assert [rank["predict 1"] for rank in ranks] == [[[10, 0]], []]
