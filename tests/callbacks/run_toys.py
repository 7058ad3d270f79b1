"""A small run with all that a checkpoint must hold: averages, dropout, an order, a buffer that steps change."""

import os
import shutil

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from callbacks import Checkpoints
from callbacks.checkpointing.files import CheckpointFiles
from datamodules.loading import EpochSampler, ResumableLoader
from lit_models import Optimization
from lit_models.base import LitModule

BATCHES = 9  # of an epoch
OPTIMIZATION = Optimization(lr=0.05, schedule="constant", weight_decay=0.1)


class Points(torch.utils.data.Dataset):
    """An epoch's points are functions of the epoch and the index."""

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, key):
        epoch, index = key
        return torch.randn(4, generator=torch.Generator().manual_seed(1000 * epoch + index))


class Data(LightningDataModule):
    """Batches of two points."""

    batch_size = 2

    def train_dataloader(self):
        points = Points()
        return ResumableLoader(points, self.batch_size, sampler=EpochSampler(points, 1, 0))

    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.linspace(-1, 1, 12).view(3, 4), batch_size=1)


class Model(LitModule):
    """A linear map that learns to be the identity; it counts what it has seen."""

    def __init__(self, at=None, scores=None, optimization=OPTIMIZATION):
        """Do ``at[place](step)`` at a place, and give ``scores`` in validations, if there are any."""
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 4))
        self.register_buffer("seen", torch.zeros(4))
        self.optimization = optimization
        self.at, self.scores = at or {}, list(scores or [])

    def _here(self, place):
        self.at.get(place, lambda step: None)(self.global_step)

    def training_step(self, batch, batch_idx):
        self.seen += batch.sum(0)
        self._here("forward")
        loss = self.finite((self.network(batch) - batch).square().mean())
        self.log("train/loss", loss.detach())
        return {"loss": loss}

    def backward(self, loss):
        super().backward(loss)
        if "gradient" in self.at:
            self.network[2].bias.grad[1] = self.at["gradient"](self.global_step)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self._here("batch end")

    def validation_step(self, batch, batch_idx):
        self._here("validation")
        score = self.scores[0] if self.scores else (self.network(batch) - batch).square().mean()
        self.log("val/score", score, on_epoch=True)

    def on_validation_end(self):
        super().on_validation_end()
        if self.scores and not self.trainer.sanity_checking:
            self.scores.pop(0)


class Keeper(Callback):
    """Keeps a copy of each ``last.ckpt`` that is written, in order."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self.kept = []

    def setup(self, trainer, pl_module, stage):
        keeper = self

        class Copying(CheckpointFiles):
            def save_checkpoint(self, checkpoint, path, storage_options=None):
                super().save_checkpoint(checkpoint, path, storage_options)
                if path.name == "last.ckpt":
                    keeper.kept.append(keeper.folder / f"{len(keeper.kept)}_step_{checkpoint['global_step']}.ckpt")
                    shutil.copy(path, keeper.kept[-1])

        trainer.strategy.checkpoint_io = Copying()


def fit(folder, model=None, ckpt_path=None, callbacks=(), policy=None, **options):
    """Train in a run folder; its checkpoints are in ``checkpoints``."""
    policy = policy or Checkpoints("val/score")
    options = {"max_steps": 2 * BATCHES + 3, "num_sanity_val_steps": 0} | options
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EMAWeightAveraging(decay=0.8, use_buffers=False), *callbacks, policy],
        **options,
    )
    trainer.fit(model or Model(), Data(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def forked(work):
    """Do ``work()`` in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except SystemExit as stop:
        status = stop.code
    finally:
        os._exit(status)


def last(folder):
    """The content of ``last.ckpt``."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(found, wanted):
    """Assert that two checkpoints hold the same weights, averages, moments, schedule and step exactly."""
    assert found["global_step"] == wanted["global_step"]
    for name in ("state_dict", "current_model_state", "averaging_state"):
        assert found[name].keys() == wanted[name].keys()
        for entry, value in wanted[name].items():
            assert torch.equal(found[name][entry], value), (name, entry)
    for states in zip(found["optimizer_states"], wanted["optimizer_states"], strict=True):
        found_moments, wanted_moments = (state["state"] for state in states)
        for key, moments in wanted_moments.items():
            assert all(torch.equal(found_moments[key][name], moments[name]) for name in moments)
    assert found["lr_schedulers"] == wanted["lr_schedulers"]
