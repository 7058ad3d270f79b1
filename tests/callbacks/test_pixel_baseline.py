"""The baseline of independent pixels."""

import numpy as np
import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import PixelBaseline
from datamodules import DigitsDataModule, PianoRollDataModule


class Nothing(LightningModule):
    """A module that evaluates nothing."""

    def validation_step(self, batch, batch_idx):
        """Nothing."""

    test_step = validation_step


def evaluated(stage, data, tmp_path, **options):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=[PixelBaseline(**options)],
    )
    return getattr(trainer, stage)(Nothing(), datamodule=data, verbose=False)[0]


@pytest.mark.parametrize(("stage", "prefix", "split"), [("validate", "val", "val"), ("test", "test", "test")])
def test_bits_are_those_of_counted_values(tmp_path, stage, prefix, split):
    data = DigitsDataModule()
    found = evaluated(stage, data, tmp_path)[f"{prefix}/bits_per_dim/independent_pixels"]
    train, scans = (data.images(name).canvases.reshape(-1, 64) for name in ("train", split))
    bits = []
    for cell in range(64):
        counts = np.bincount(train[:, cell], minlength=256) + 1 / 256
        bits += list(-np.log2(counts / counts.sum())[scans[:, cell]])
    assert found == pytest.approx(np.mean(bits), rel=1e-5)


def test_fewer_images_know_less(tmp_path):
    few = evaluated("test", DigitsDataModule(), tmp_path, num_images=50)
    many = evaluated("test", DigitsDataModule(), tmp_path)
    assert few["test/bits_per_dim/independent_pixels"] > many["test/bits_per_dim/independent_pixels"] + 0.1


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="num_images must be at least 1, not 0"):
        PixelBaseline(0)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.datamodule = PianoRollDataModule(folder=str(tmp_path))
    with pytest.raises(MisconfigurationException, match="needs a data module of images, not PianoRollDataModule"):
        PixelBaseline().on_test_epoch_start(trainer, Nothing())
