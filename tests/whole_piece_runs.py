"""Scores of whole pieces of a small file of chorales, on one or two CPU processes. Run by test_whole_pieces.py.

Usage: whole_piece_runs.py DEVICES BATCH FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer

from datamodules import JSBChorales, PianoRollDataModule, RollEvaluation
from lit_models import LitFractal
from litscale.models.fractal import Fractal

WINDOW, STRIDE = 16, 4
LENGTHS = [12, 16, 29, 40, 36]


def module():
    """A network that is told phases and what came before, with weights that make all of it matter."""
    torch.manual_seed(0)
    network = Fractal(
        sizes=[(48, WINDOW), (48, 1), (12, 1), (1, 1)],
        generators=["ar"] * 3,
        widths=[16] * 4,
        blocks=[1, 1, 1, 0],
        heads=[2, 2, 2, 1],
        codec="binary",
        scan="column_major",
        positions=["rope", "learned", "learned"],
        periods=[4, 16],
        preceding_columns=2,
        preceding_margin=3,
        preceding_average=4,
    )
    for name, parameter in network.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return LitFractal(network)


def chorales(folder):
    """A file of five pieces of unequal lengths."""
    random = np.random.default_rng(0)
    pieces = [random.integers(40, 80, (steps, 4)).tolist() for steps in LENGTHS]
    path = Path(folder, "jsb.json")
    path.write_text(json.dumps({"train": [], "valid": pieces}))
    return path


def data(path, batch_size, **options):
    """Its validation pieces."""
    return PianoRollDataModule(
        source=JSBChorales(str(path)),
        encoding="binary",
        velocity_bins=1,
        pitch_range=(36, 83),
        window=WINDOW,
        batch_size=batch_size,
        cache_dir=str(path.parent / "cache"),
        **{"evaluation": RollEvaluation(STRIDE)} | options,
    )


def validate(devices, batch_size, folder, **options):
    """The scores."""
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    (scores,) = trainer.validate(module(), data(Path(folder, "jsb.json"), batch_size, **options), verbose=False)
    return trainer, scores


if __name__ == "__main__":
    torch.set_num_threads(1)
    devices, batch_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    trainer, scores = validate(devices, batch_size, folder)
    if trainer.is_global_zero:
        Path(folder, "scores.json").write_text(json.dumps(scores))
