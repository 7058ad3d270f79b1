"""Run by test_ddp.py, in two processes: writes down which data each rank is given.

Arguments: folder of songs, folder of the cache, folder for the records.
"""

import json
import sys
import zlib
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MeanMetric

from datamodules import GenerationRequest, PianoRollDataModule


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.mean = MeanMetric()
        self.seen: dict[str, list] = {"train": [], "val": [], "predict": []}

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.seen["train"].append([zlib.crc32(canvas.numpy().tobytes()) for canvas in batch["canvas"]])
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch: dict, _: int) -> None:
        crcs = [zlib.crc32(canvas.numpy().tobytes()) for canvas in batch["canvas"]]
        self.seen["val"].append(crcs)
        self.mean.update(torch.tensor(crcs, dtype=torch.float64))
        self.log("val/mean", self.mean, on_step=False, on_epoch=True)

    def predict_step(self, batch: dict, _: int) -> None:
        self.seen["predict"].append([batch["seed"], *batch["index"].tolist()])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def main(songs: str, cache: str, records: str) -> None:
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
    lists = {"train": ["a/*"], "val": ["b/01.mid", "b/03.mid"]}
    options = {"window": 16, "batch_size": 2, "cache_dir": cache}
    data = PianoRollDataModule(songs, samples_per_epoch=13, num_workers=1, split_files=lists, **options)
    trainer.fit(model, data)
    record = {**model.seen, "mean": float(trainer.callback_metrics["val/mean"])}
    for samples in (5, 1):
        model.seen["predict"] = []
        request = GenerationRequest(num_samples=samples, seed=10)
        trainer.predict(model, PianoRollDataModule(songs, predict=request, **options), return_predictions=False)
        record[f"predict {samples}"] = model.seen["predict"]
    Path(records, f"{trainer.global_rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
