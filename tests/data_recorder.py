"""A module that notes which data it is given, and its runs."""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torchmetrics import MeanMetric

TWO_RANKS = {"strategy": "ddp", "devices": 2, "max_epochs": 1, "num_sanity_val_steps": 0}


def checksums(batch: dict[str, Any]) -> tuple[int, ...]:
    """One for each canvas."""
    return tuple(zlib.crc32(canvas.numpy().tobytes()) for canvas in batch["canvas"])


def flat(batches: list[list[int]]) -> list[int]:
    """The items of all batches."""
    return [item for batch in batches for item in batch]


class Recorder(LightningModule):
    """Keeps the checksums of its batches, or what they ask for, and logs the mean checksum of validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.mean = MeanMetric()
        self.seen: dict[str, list[tuple[int, ...]]] = {"train": [], "val": [], "predict": []}

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        self.seen["train"].append(checksums(batch))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.seen["val"].append(checksums(batch))
        self.mean.update(torch.tensor(self.seen["val"][-1], dtype=torch.float64))
        self.log("val/mean", self.mean, on_step=False, on_epoch=True)

    def predict_step(self, batch: dict[str, Any], _: int) -> None:
        self.seen["predict"].append((batch["seed"], *batch["index"].tolist()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def write(self, folder: str, **more: Any) -> None:
        """Write what this process saw, and more, to ``rank_<n>.json``."""
        Path(folder, f"rank_{self.global_rank}.json").write_text(json.dumps(self.seen | more))


def trainer(**options: Any) -> Trainer:
    """A quiet trainer on the CPU."""
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"accelerator": "cpu", "enable_checkpointing": False} | silent | options)


def fit(
    data: LightningDataModule, checkpoint: Path | None = None, folder: Path | None = None, **options: Any
) -> list[tuple[int, ...]]:
    """The batches of a training run; with a folder, it keeps a checkpoint of each step and of each epoch's end."""
    if folder is not None:
        options["callbacks"] = [
            ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1),
            ModelCheckpoint(folder, "epoch-{step}", save_top_k=-1, save_on_train_epoch_end=True),
        ]
    model = Recorder()
    trainer(enable_checkpointing=folder is not None, **options).fit(
        model, data, ckpt_path=checkpoint, weights_only=False
    )
    return model.seen["train"]
