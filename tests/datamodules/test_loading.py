from collections.abc import Callable
from pathlib import Path

import pytest
from data_recorder import fit
from torch.utils.data.distributed import DistributedSampler

from datamodules import PianoRollDataModule
from datamodules.loading import EpochSampler, ResumableLoader, ShardSampler

Make = Callable[..., PianoRollDataModule]

BATCHES, EPOCHS = 5, 3
BY_EPOCHS = {"max_epochs": EPOCHS}
BY_STEPS = {"max_epochs": -1, "max_steps": EPOCHS * BATCHES}


@pytest.fixture
def small(module: Make) -> Make:
    """A data module with five batches in an epoch."""
    return lambda **options: module(samples_per_epoch=4 * BATCHES + 3, transpose=2, **options)


def test_samplers_are_such_that_lightning_leaves_them() -> None:
    data = range(10)
    assert isinstance(EpochSampler(data, 2, 0), DistributedSampler)
    assert isinstance(ShardSampler(data, 2, 0), DistributedSampler)


def test_training_ranks_share_an_epoch_evenly() -> None:
    samplers = [EpochSampler(range(11), 3, rank) for rank in range(3)]
    for sampler in samplers:
        sampler.set_epoch(5)
    drawn = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(items) for items in drawn] == [3, 3, 3]
    assert sorted(key for keys in drawn for key in keys) == [(5, index) for index in range(9)]


def test_shards_hold_each_index_once() -> None:
    samplers = [ShardSampler(range(11), 3, rank) for rank in range(3)]
    assert [list(sampler) for sampler in samplers] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]
    assert [len(sampler) for sampler in samplers] == [4, 4, 3]


def test_the_place_is_that_of_the_batches_taken() -> None:
    data = [(0, index) for index in range(12)]
    keyed = {key: index for index, key in enumerate(data)}
    loader = ResumableLoader(keyed, 2, sampler=EpochSampler(data, 1, 0))
    batches = iter(loader)
    assert loader.state_dict() == {"epoch": 0, "batches": 0, "ahead": 0, "items": 12}
    next(batches), next(batches)
    place = loader.state_dict()
    assert place == {"epoch": 0, "batches": 2, "ahead": 0, "items": 12}
    other = ResumableLoader(keyed, 2, sampler=EpochSampler(data, 1, 0))
    other.load_state_dict(place)
    assert other.state_dict() == place
    assert len(other) == 6
    assert [batch.tolist() for batch in other] == [batch.tolist() for batch in batches]
    assert len(list(other)) == 6


def test_an_epoch_whose_data_have_changed_meanwhile_is_told() -> None:
    data = [(0, index) for index in range(8)]
    loader = ResumableLoader(dict.fromkeys(data, 0), 2, sampler=EpochSampler(data, 1, 0))
    loader.load_state_dict({"epoch": 0, "batches": 1, "ahead": 0, "items": 12})
    with pytest.warns(UserWarning, match="the epoch was begun with 12 items of data, and there are 8 now"):
        assert len(list(loader)) == 3
    loader.load_state_dict({"epoch": 0, "batches": 1, "ahead": 0})  # of a checkpoint from before there was this count
    assert len(list(loader)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(small: Make, workers: int) -> None:
    def epochs(module: PianoRollDataModule) -> list[bytes]:
        module.prepare_data()
        module.setup("fit")
        loader = module.train_dataloader()
        result = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            result += [batch["canvas"].numpy().tobytes() for batch in loader]
        return result

    alone = epochs(small())
    assert len(set(alone)) == 2 * BATCHES
    assert epochs(small(num_workers=workers)) == alone


@pytest.mark.parametrize("options", [BY_EPOCHS, BY_STEPS], ids=["epochs", "steps"])
def test_resuming_anywhere_gives_the_same_batches(small: Make, tmp_path: Path, options: dict[str, int]) -> None:
    whole = fit(small(), folder=tmp_path / "runs", **options)
    assert len(whole) == len(set(whole)) == EPOCHS * BATCHES
    checkpoints = sorted((tmp_path / "runs").glob("*.ckpt"))
    assert len(checkpoints) == EPOCHS * BATCHES + EPOCHS
    for checkpoint in checkpoints:
        step = int(checkpoint.stem.split("=")[1])
        assert fit(small(), checkpoint, **options) == whole[step:], checkpoint.stem


@pytest.mark.parametrize(("before", "after"), [(2, 2), (0, 2), (2, 0)])
def test_resuming_with_workers(small: Make, tmp_path: Path, before: int, after: int) -> None:
    whole = fit(small(num_workers=before), folder=tmp_path, **BY_EPOCHS)
    for step in (BATCHES - 2, BATCHES, BATCHES + 2):
        assert fit(small(num_workers=after), tmp_path / f"step={step}.ckpt", **BY_EPOCHS) == whole[step:]


def test_resuming_twice(small: Make, tmp_path: Path) -> None:
    whole = fit(small(), folder=tmp_path / "1", **BY_STEPS)
    # Lightning counts an epoch twice that it resumes at its end in this mode.
    second = fit(small(), tmp_path / "1" / f"epoch-step={BATCHES}.ckpt", tmp_path / "2", **BY_STEPS)
    assert second == whole[BATCHES:]
    for name, step in ((f"step={BATCHES + 3}", BATCHES + 3), (f"epoch-step={2 * BATCHES}", 2 * BATCHES)):
        assert fit(small(), tmp_path / "2" / f"{name}.ckpt", **BY_STEPS) == whole[step:]


@pytest.mark.parametrize("options", [{"val_check_interval": 2}, {"limit_train_batches": 3}])
def test_resuming_with_validation_inside_and_with_short_epochs(
    small: Make, tmp_path: Path, options: dict[str, int]
) -> None:
    whole = fit(small(), folder=tmp_path, max_epochs=2, **options)
    for step in (2, 3, 4):
        assert fit(small(), tmp_path / f"step={step}.ckpt", max_epochs=2, **options) == whole[step:]


def test_overfitting_batches_repeats_them(small: Make) -> None:
    seen = fit(small(), max_epochs=3, overfit_batches=2)
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]
    assert len(set(seen)) == 2
