"""Run by test_imagenet.py, in two processes: writes down which images each rank is given.

Arguments: folder of images, folder for the records.
"""

import json
import sys
import zlib
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MeanMetric

from datamodules import ImageNetDataModule


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.mean = MeanMetric()
        self.seen: dict[str, list[int]] = {"train": [], "val": []}

    def note(self, split: str, batch: dict) -> list[int]:
        crcs = [zlib.crc32(canvas.numpy().tobytes()) for canvas in batch["canvas"]]
        self.seen[split] += crcs
        return crcs

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.note("train", batch)
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch: dict, _: int) -> None:
        self.mean.update(torch.tensor(self.note("val", batch), dtype=torch.float64))
        self.log("val/mean", self.mean, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def main(folder: str, records: str) -> None:
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    model = Recorder()
    data = ImageNetDataModule(folder, size=8, num_classes=3, batch_size=1, flip=False, num_workers=1)
    trainer.fit(model, data)
    record = {**model.seen, "mean": float(trainer.callback_metrics["val/mean"])}
    Path(records, f"{trainer.global_rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
