"""Pictures, sounds and animations arrive in W&B and TensorBoard: what was sent is read back."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from callback_toys import FORM, roll, trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import offline_history

from callbacks.reporting.loggers import send_animations, send_numbers, send_pictures, send_sounds
from callbacks.reporting.trainer_state import logs_now, run_folder
from litscale.music import RollRenderer


@pytest.fixture
def saved(tmp_path):
    """A roll as files."""
    stem = tmp_path / "sound"
    RollRenderer(FORM).save(roll(1)[None], stem, frames=[roll(0)[None], roll(1)[None]], wav=True)
    return stem


PICTURES = [np.full((6, 5, 3), shade, np.uint8) for shade in (10, 200)]


def test_tensorboard_holds_what_was_sent(tmp_path, saved):
    logger = TensorBoardLogger(tmp_path / "logs")
    run = trainer(tmp_path, logger=[CSVLogger(tmp_path), logger])
    send_pictures(run, "samples/picture", PICTURES)
    send_sounds(run, "samples/sound", [saved.with_suffix(".wav")])
    send_animations(run, "samples/animation", [saved.with_suffix(".gif")])
    send_numbers(run, {"attention/entropy": 0.25})
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    for i, picture in enumerate(PICTURES):
        (event,) = events.Images(f"samples/picture/{i}")
        assert event.step == 0
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(event.encoded_image_string))), picture)
    (event,) = events.Audio("samples/sound/0")
    assert event.sample_rate == 22050
    original = np.frombuffer(saved.with_suffix(".wav").read_bytes()[44:], "<i2")
    decoded = np.frombuffer(event.encoded_audio_string[44:], "<i2")
    assert np.abs(original.astype(int) - decoded).max() <= 1  # TensorBoard's rounding
    assert np.abs(original).max() > 10000
    assert [event.value for event in events.Scalars("attention/entropy")] == [0.25]
    assert not [tag for tag in events.Tags()["images"] if "animation" in tag]


def test_wandb_holds_what_was_sent(tmp_path, saved, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="toys", save_dir=tmp_path, offline=True)
    run = trainer(tmp_path, logger=logger)
    send_pictures(run, "samples/picture", PICTURES)
    send_sounds(run, "samples/sound", [saved.with_suffix(".wav")])
    send_animations(run, "samples/animation", [saved.with_suffix(".gif")])
    send_numbers(run, {"attention/entropy": 0.25})
    wandb.finish()
    pictures, sounds, animations, numbers = offline_history(tmp_path)
    (media,) = tmp_path.glob("wandb/offline-run-*/files")
    for name, picture in zip(pictures["samples/picture/filenames"], PICTURES, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(media / name)), picture)
    sent = {".wav": sounds["samples/sound/0/path"], ".gif": animations["samples/animation/videos"][0]["path"]}
    for suffix, path in sent.items():
        assert (media / path).read_bytes() == saved.with_suffix(suffix).read_bytes()
    assert numbers["attention/entropy"] == 0.25
    assert numbers["trainer/global_step"] == 0


def test_the_run_folder_does_not_depend_on_the_logger(tmp_path):
    assert run_folder(trainer(tmp_path)) == tmp_path
    assert run_folder(trainer(tmp_path, logger=TensorBoardLogger(tmp_path / "other", "name"))) == tmp_path


def test_fast_dev_run_logs_each_step():
    assert logs_now(SimpleNamespace(fast_dev_run=1))
