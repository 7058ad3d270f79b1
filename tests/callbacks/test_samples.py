"""Samples while training: when, where, of which weights, and without a trace in training."""

import pytest
import torch
from callback_toys import FORM, Drawing, ToyRolls, drawn, fractal, pairs, trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import offline_history

from callbacks import Samples
from datamodules import DigitsDataModule
from lit_models import Optimization
from litscale.music import RollRenderer, read_midi


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_of_each_epoch(tmp_path):
    run = trainer(tmp_path, callbacks=[Samples(num_samples=2, every_n_epochs=2, seed=5)], max_epochs=4)
    run.fit(Drawing(), ToyRolls())
    # Three batches an epoch; epochs 2 and 4.
    expected = [f"step_{n}/sample_0000{i}.{kind}" for n in (12, 6) for i in (0, 1) for kind in ("mid", "png")]
    assert names(tmp_path / "samples") == expected
    restored = read_midi(tmp_path / "samples" / "step_6" / "sample_00001.mid", "onset_hold", phase=0, velocity_bins=3)
    assert (restored.symbols[60:72] == drawn(5, 1)).all()


def test_files_of_steps(tmp_path):
    callback = Samples(num_samples=1, every_n_epochs=None, every_n_steps=2)
    run = trainer(tmp_path, callbacks=[callback], max_epochs=4, accumulate_grad_batches=2)
    run.fit(Drawing(), ToyRolls())
    # Two steps an epoch: the last batch makes one of its own.
    assert {name.split("/")[0] for name in names(tmp_path / "samples")} == {"step_2", "step_4", "step_6", "step_8"}


def test_animations_and_sounds_reach_loggers(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    boards = TensorBoardLogger(tmp_path), WandbLogger(project="toys", save_dir=tmp_path, offline=True)
    run = trainer(tmp_path, callbacks=[Samples(num_samples=2, seed=5, gif=True, wav=True)], logger=boards)
    run.fit(Drawing(), ToyRolls())
    wandb.finish()
    folder = tmp_path / "samples" / "step_3"
    assert {path.split(".")[-1] for path in names(folder)} == {"mid", "png", "gif", "wav"}
    assert Image.open(folder / "sample_00000.gif").n_frames == 2
    events = EventAccumulator(boards[0].log_dir).Reload()
    assert events.Tags()["images"] == ["samples/picture/0", "samples/picture/1"]
    assert events.Tags()["audio"] == ["samples/sound/0", "samples/sound/1"]
    height, width = RollRenderer(FORM).picture(drawn(5, 1)[None]).shape[:2]
    (image,) = events.Images("samples/picture/1")
    assert (image.step, image.height, image.width) == (3, height, width)
    keys = {key for row in offline_history(tmp_path) for key in row}
    assert {"samples/picture/count", "samples/sound/1/path", "samples/animation/count"} <= keys


def test_classes_take_turns(tmp_path):
    module = Drawing()
    run = trainer(tmp_path, callbacks=[Samples(num_samples=5)], limit_train_batches=1)
    run.fit(module, ToyRolls(num_classes=2))
    assert module.labels[0].tolist() == [0, 1, 0, 1, 0]


def test_averaged_weights_make_them_and_go(tmp_path):
    module = Drawing()
    averaging = EMAWeightAveraging(decay=0.5, use_buffers=False)
    run = trainer(tmp_path, callbacks=[Samples(num_samples=1), averaging], limit_train_batches=3)
    seen = []
    module.on_train_epoch_end = lambda: seen.append(module.first.weight.detach().clone())
    run.fit(module, ToyRolls())
    assert torch.equal(module.weights[0], averaging._average_model.module.first.weight)
    assert not torch.equal(module.weights[0], seen[0])  # training went on with its own


def test_options_and_data_are_checked(tmp_path):
    with pytest.raises(ValueError, match="both null"):
        Samples(every_n_epochs=None)
    with pytest.raises(ValueError, match="at least 1"):
        Samples(every_n_steps=0)
    with pytest.raises(MisconfigurationException, match="Samples needs a data module with `renderer`"):
        trainer(tmp_path, callbacks=[Samples()]).fit(Drawing(), pairs((1, 2)))
    with pytest.raises(ValueError, match="wav: images have no sound"):
        trainer(tmp_path, callbacks=[Samples(wav=True)]).fit(Drawing(), DigitsDataModule(size=8))


def test_what_parallel_decoding_took_reaches_loggers(tmp_path):
    board = TensorBoardLogger(tmp_path)
    module = fractal(last="ar")
    module.optimization = Optimization(lr=0.01)
    trainer(tmp_path, callbacks=[Samples(num_samples=2, seed=5)], logger=board).fit(module, ToyRolls())
    events = EventAccumulator(board.log_dir).Reload()
    (event,) = events.Scalars("samples/decoding/passes_per_patch")
    counts = module.decoding_counts()
    assert counts["patches"] == 2 * 4
    assert (event.step, event.value) == (3, pytest.approx(counts["patch_passes"] / 8))
