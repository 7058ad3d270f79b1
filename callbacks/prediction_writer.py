"""Samples of ``predict`` as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from callbacks.generation import frames_of, renderer_of
from callbacks.json_text import json_text
from callbacks.loggers import run_folder
from litscale.storage.files import write_atomically, write_image

MOST_NAMES = 24  # more files than this are counted, not listed
MOST_ON_SHEET, COLUMNS = 100, 10
MOST_ROWS, MOST_STEPS = 4, 16


class PredictionWriter(Callback):
    """Writes each sample of ``predict`` as soon as its batch is done.

    ``sample_00000.mid`` and ``.png`` (or what the data module's renderer writes), on demand ``.gif`` and ``.wav``, and
    ``sample_00000.json`` with settings, row of its batch, label, checkpoint and statistics. The number is the sample's
    own over all devices, each of which writes what it made. A file of the same name is overwritten; files appear whole
    or not at all. Of images there is also ``sheet.png``, the first hundred of rank zero side by side, and with ``gif``
    ``steps.png``, how the first ones came into being, one a row. Use it with ``return_predictions=False``, or all
    samples are kept in memory as well.

    It is no `BasePredictionWriter`: that one has Lightning look for the indices of a batch, and warn in vain, which
    the batch itself knows.
    """

    def __init__(self, output_dir: str | None = None, gif: bool = False, wav: bool = False) -> None:
        """Nothing is written yet.

        Args:
            output_dir: folder of the files; by default ``predictions`` in the run folder.
            gif: also animate how each sample comes into being.
            wav: also play each sample.
        """
        super().__init__()
        self.output_dir = output_dir
        self.gif = gif
        self.wav = wav
        self._files: list[Path] = []
        self._shown: list[np.ndarray] = []
        self._steps: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the folder, and have the module keep the steps if they are to be animated.

        Raises:
            MisconfigurationException: the data module has no renderer.
            OSError: the folder cannot be made.
        """
        if stage != "predict":
            return
        renderer_of(trainer, self)
        self._folder = Path(self.output_dir or run_folder(trainer) / "predictions")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files, self._shown, self._steps = [], [], []
        pl_module.record_frames = self.gif

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Any],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the samples of a batch.

        Raises:
            ValueError: animations are wanted, and the module kept no steps.
            OSError: a file could not be written.
        """
        if self.gif and not outputs["frames"]:
            raise ValueError(f"gif: {type(pl_module).__name__}.predict_step kept no frames; set gif to false")
        renderer = renderer_of(trainer, self)
        canvases, known = outputs["canvas"].cpu().numpy(), outputs["known"].cpu().numpy()
        if self.gif and not self._steps:
            self._steps = outputs["frames"]
        self._shown += list(canvases[: MOST_ON_SHEET - len(self._shown)])
        for row, index in enumerate(outputs["index"].tolist()):
            stem = self._folder / f"sample_{index:05d}"
            given = known[row] if known[row].any() else None
            animated = frames_of(outputs["frames"], row) if self.gif else {}
            files = renderer.save(canvases[row], stem, known=given, wav=self.wav, **animated)
            record = {
                "index": index,
                "row": row,
                "label": None if outputs["label"] is None else int(outputs["label"][row]),
                "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
                "settings": outputs["settings"],
                "statistics": renderer.statistics(canvases[row]),
                "files": [file.name for file in files],
            }
            self._files += [*files, write_atomically(f"{stem}.json", json_text(record))]

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet and say what was written, on rank zero."""
        # Without asking the other ranks: one that had no batch never comes here, and would be waited for in vain.
        if not trainer.is_global_zero:
            return
        renderer = renderer_of(trainer, self)
        if hasattr(renderer, "sheet"):
            self._draw("sheet.png", renderer.sheet(np.stack(self._shown), COLUMNS))
        if hasattr(renderer, "sheet") and self._steps:
            chosen = np.unique(np.linspace(0, len(self._steps) - 1, MOST_STEPS).astype(int))
            canvases, done = (torch.stack(part)[chosen, :MOST_ROWS] for part in zip(*self._steps, strict=True))
            canvases, done = (x.transpose(0, 1).flatten(0, 1).numpy() for x in (canvases, done))  # row after row
            self._draw("steps.png", renderer.sheet(canvases, len(chosen), ~done.astype(bool)))
        if trainer.world_size > 1:
            print(f"Wrote samples to {self._folder}, {len(self._files)} files of them on rank 0")
        elif len(self._files) > MOST_NAMES:
            print(f"Wrote {len(self._files)} files to {self._folder}")
        else:
            print("\n".join(["Wrote", *(f"  {file}" for file in self._files)]))

    def _draw(self, name: str, page: np.ndarray) -> None:
        """Write an RGB picture."""
        self._files.append(write_image(self._folder / name, Image.fromarray(page)))
