"""Run by `test_two_ranks.py` as a program, in two processes on the CPU."""

from __future__ import annotations

import faulthandler
import json
import sys
from pathlib import Path

import torch
from callback_toys import Drawing, LabelledDrawing, ToyRolls, TwoLevels, fractal, pairs, trainer
from torch import Tensor

from callbacks import AttentionDiagnostics, GradientNorms, LevelLosses, MusicEvaluation, PredictionWriter, Samples
from datamodules import FashionMNISTDataModule, ImageRequest

DDP = {"devices": 2, "strategy": "ddp"}


class Brightening(TwoLevels):
    """Makes images that are as bright as their number says."""

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, object]:
        canvas = torch.zeros_like(batch["canvas"]) + 40 * batch["index"][:, None, None, None].to(torch.uint8)
        return {**batch, "canvas": canvas, "frames": [], "settings": {}}


def drawn_by_index(predictions: list[dict[str, Tensor]]) -> dict[str, list[object]]:
    """Number of each predicted sample -> its symbols."""
    return {
        str(index): canvas.tolist()
        for batch in predictions
        for index, canvas in zip(batch["index"].tolist(), batch["canvas"], strict=True)
    }


def main(folder: Path) -> None:
    """Write what each rank saw to ``rank_<n>.json``."""
    faulthandler.dump_traceback_later(120, exit=True)  # a rank that waits for ever says where
    folder.mkdir(exist_ok=True)
    seen: dict[str, object] = {}

    run = trainer(folder, callbacks=[LevelLosses()], accumulate_grad_batches=2, **DDP)
    reduce, shapes = run.strategy.reduce, []
    run.strategy.reduce = lambda tensor, **options: (shapes.append(list(tensor.shape)), reduce(tensor, **options))[1]
    run.fit(TwoLevels(), pairs((1, 0), (2, 0), (4, 0), (8, 0)))
    seen["losses"] = {key: value.item() for key, value in run.callback_metrics.items()}
    seen["collectives"] = shapes

    run = trainer(folder, callbacks=[GradientNorms()], **DDP)
    run.fit(TwoLevels(), pairs((6, 0), (0, 8)))
    seen["norms"] = {key: value.item() for key, value in run.callback_metrics.items()}

    module = Drawing()
    trainer(folder, callbacks=[Samples(num_samples=1)], **DDP).fit(module, ToyRolls())
    seen["samples"] = len(module.asked)

    trainer(folder, callbacks=[AttentionDiagnostics()], **DDP).validate(fractal(), ToyRolls(), verbose=False)

    module, data = LabelledDrawing(), ToyRolls(num_classes=2)
    run = trainer(folder, callbacks=[MusicEvaluation(num_samples=5, batch_size=2)], **DDP)
    run.validate(module, data, verbose=False)
    seen["music"] = {key: value.item() for key, value in run.callback_metrics.items()}
    seen["asked"], seen["fits"] = [numbers for _, numbers in module.asked], data.fits

    writer = PredictionWriter(str(folder / "out"))
    run = trainer(folder, callbacks=[writer], **DDP)
    run.predict(fractal(), ToyRolls(), return_predictions=False)
    seen["files"] = writer._files

    # samples that are decoded in parallel
    run = trainer(folder / "parallel", callbacks=[MusicEvaluation(num_samples=5, batch_size=2)], **DDP)
    run.validate(fractal(last="ar"), ToyRolls(), verbose=False)
    seen["decoding"] = {key: value.item() for key, value in run.callback_metrics.items() if "decoding" in key}
    predictions = trainer(folder, **DDP).predict(fractal(last="ar"), ToyRolls())
    seen["drawn"] = drawn_by_index(predictions)

    # One batch: rank 1 has none, and is not waited for.
    writer = PredictionWriter(str(folder / "single"))
    trainer(folder, callbacks=[writer], **DDP).predict(fractal(), ToyRolls(requests=1), return_predictions=False)

    # Images of both ranks are on one sheet.
    data = FashionMNISTDataModule("none", size=16, batch_size=1, predict=ImageRequest(num_samples=5, labels=[2, 7]))
    writer = PredictionWriter(str(folder / "images"))
    trainer(folder, callbacks=[writer], **DDP).predict(Brightening(), data, return_predictions=False)

    (folder / f"rank_{run.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
