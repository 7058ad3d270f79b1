"""`PredictionWriter`: samples of ``predict`` as files."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from callbacks.evaluation.evaluated_weights import evaluated_weights
from callbacks.evaluation.generation import frames_of
from callbacks.reporting.json_text import json_text
from callbacks.reporting.trainer_state import gathered, run_folder
from datamodules.base import SheetRenderer, WrittenData, class_names_of, data_of, required
from litscale.storage.files import write_atomically, write_image
from litscale.storage.temporaries import publish_folder, remove_stale, temporary_folder

MOST_NAMES = 24  # more files than this are counted, not listed
MOST_ON_SHEET, COLUMNS = 100, 10
MOST_ROWS, MOST_STEPS = 4, 16


class PredictionWriter(Callback):
    """Writes the samples of a ``predict`` into a folder of the request's own.

    The folder is called after the request, the weights and a hash of all that its files depend on (request, files
    that it names, weights, precision, how samples are drawn, and as what they are written), such as
    ``predictions/prefix_song_64_steps-step_700-1a2b3c4d``: the same request has the same folder, and another request
    has another one. It appears when all samples are written, and then replaces its predecessor as a whole; until then
    it is hidden (``.litscale-...``), and one that a killed process left is removed by the next ``predict``.

    In it are ``sample_00000.mid`` and ``.png`` (or what the data module's renderer writes), on demand ``.gif``,
    ``.wav`` and ``.svg`` (a score), and ``sample_00000.json`` with the request, the checkpoint (path, step, SHA-256),
    settings, row of its batch, label, name of the class where the data have names, statistics, and the wall time of its
    batch in seconds with the number of samples that share it. The number is the sample's own over all devices, each of
    which writes what it made; all must see the folder. For images there is also ``sheet.png``, the first hundred
    side by side with the names of their classes, and with ``gif`` ``steps.png``, the steps of the first ones, one a
    row. Use it with ``return_predictions=False``, or all samples are kept in memory as well.

    It is no `BasePredictionWriter`, which has Lightning look for the indices of a batch and warn that there are none,
    although the batch itself holds them.
    """

    def __init__(
        self, output_dir: str | None = None, gif: bool = False, wav: bool = False, score: bool = False
    ) -> None:
        """Set up the callback; nothing is written yet.

        Args:
            output_dir: folder for the folders of requests; by default ``predictions`` in the run folder.
            gif: also write an animation of the generation of each sample.
            wav: also write the sound of each sample.
            score: also write an engraved score of each sample of music; needs the optional package verovio.
        """
        super().__init__()
        self.output_dir = output_dir
        self.gif = gif
        self.wav = wav
        self.score = score
        self._unfinished = ExitStack()  # holds the folder on rank zero, while samples are made

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make a temporary folder, and let the module keep the steps if they are to be animated; on all ranks together.

        Raises:
            MisconfigurationException: the data module has no renderer, or does not describe its request.
            ValueError: sound or scores of images are requested.
            ModuleNotFoundError: scores are requested, and verovio is not installed.
            OSError: the folder cannot be made.
        """
        if stage != "predict":
            return
        data = required(data_of(trainer), WrittenData, self)
        data.renderer.check(wav=self.wav, score=self.score)
        self._request = data.described_request()
        self._files: list[str] = []
        self._shown: dict[int, tuple[np.ndarray, str | None]] = {}  # number -> sample and class of what is shown
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._settings: dict[str, Any] = {}
        if self.gif:
            pl_module.record_frames = True  # type: ignore[assignment]
        folder = None
        if trainer.is_global_zero:
            parent = Path(self.output_dir or run_folder(trainer) / "predictions")
            parent.mkdir(parents=True, exist_ok=True)
            remove_stale(parent)
            folder = self._unfinished.enter_context(temporary_folder(parent))
        self._folder = cast(Path, trainer.strategy.broadcast(folder))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the weights that were loaded."""
        self._weights = evaluated_weights(trainer, pl_module)
        self._precision = str(trainer.precision)

    def on_predict_batch_start(self, *_: Any) -> None:
        """Start the clock of a batch."""
        self._began = time.perf_counter()

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
            ValueError: animations are requested, and the module kept no steps.
            OSError: a file could not be written.
        """
        if self.gif and not outputs["frames"]:
            raise ValueError(f"gif: {type(pl_module).__name__}.predict_step kept no frames; set gif to false")
        # 1. what the sheets of the whole request show
        renderer = required(data_of(trainer), WrittenData, self).renderer
        canvases, known = outputs["canvas"].cpu().numpy(), outputs["known"].cpu().numpy()
        seconds = time.perf_counter() - self._began  # the copies above have waited for the device
        if self.gif and not self._steps:
            self._steps = outputs["frames"]
        self._settings = self._settings or outputs["settings"]
        labels = None if outputs["label"] is None else outputs["label"].tolist()
        classes = class_names_of(data_of(trainer))
        names = [classes[label] for label in labels] if labels is not None and classes else None
        # 2. the files of each sample
        for row, index in enumerate(outputs["index"].tolist()):
            if isinstance(renderer, SheetRenderer) and len(self._shown) < MOST_ON_SHEET:
                self._shown[index] = canvases[row], names[row] if names is not None else None
            stem = self._folder / f"sample_{index:05d}"
            given = known[row] if known[row].any() else None
            animated = frames_of(outputs["frames"], row) if self.gif else {}
            files = [
                file.name
                for file in renderer.save(canvases[row], stem, known=given, wav=self.wav, score=self.score, **animated)
            ]
            record = {
                "index": index,
                "row": row,
                "label": None if labels is None else labels[row],
                **({} if names is None else {"class": names[row]}),
                "request": self._request.options,
                **self._weights.metadata,
                "settings": outputs["settings"],
                "decoding": outputs.get("decoding", {}),
                "statistics": renderer.statistics(canvases[row]),
                "seconds": {"batch": seconds, "samples": len(canvases)},
                "files": files,
            }
            self._files += [*files, write_atomically(f"{stem}.json", json_text(record)).name]

    def _draw_sheets(self, renderer: SheetRenderer, shown: dict[int, tuple[np.ndarray, str | None]]) -> None:
        """Draw samples side by side, and the steps in which the first ones were generated.

        Args:
            renderer: the renderer of the data module.
            shown: number -> sample, and the name of its class, if any.
        """
        first = [shown[index] for index in sorted(shown)[:MOST_ON_SHEET]]
        names = [name for _, name in first if name is not None]
        sheet = renderer.sheet(np.stack([picture for picture, _ in first]), COLUMNS, names=names or None)
        self._write_picture("sheet.png", sheet)
        if self._steps:
            chosen = np.unique(np.linspace(0, len(self._steps) - 1, MOST_STEPS).astype(int))
            parts = (torch.stack(part)[chosen, :MOST_ROWS] for part in zip(*self._steps, strict=True))
            canvases, done = (part.transpose(0, 1).flatten(0, 1).numpy() for part in parts)  # row after row
            self._write_picture("steps.png", renderer.sheet(canvases, len(chosen), ~done.astype(bool)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw the sheets and rename the folder when all ranks are done, and print what was written.

        Raises:
            OSError: the folder cannot be renamed.
        """
        if stage != "predict":
            return
        # Here and not at the end of the epoch, where a rank that had no batch never comes.
        shown = {index: sample for part in gathered(trainer, self._shown) for index, sample in part.items()}
        if self.gif:
            pl_module.record_frames = False  # type: ignore[assignment]
        if not trainer.is_global_zero:
            return
        with self._unfinished:
            if not any(self._folder.iterdir()):  # limit_predict_batches is 0
                return
            renderer = required(data_of(trainer), WrittenData, self).renderer
            if isinstance(renderer, SheetRenderer):
                self._draw_sheets(renderer, shown)
            folder = publish_folder(self._folder, self._folder.with_name(self._name()))
        if trainer.world_size > 1:
            print(f"Wrote samples to {folder}; rank 0 wrote {len(self._files)} of the files")
        elif len(self._files) > MOST_NAMES:
            print(f"Wrote {len(self._files)} files to {folder}")
        else:
            print("\n".join(["Wrote", *(f"  {folder / file}" for file in self._files)]))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Delete the unfinished folder."""
        self._unfinished.close()

    def _name(self) -> str:
        """Return the final name of the folder, with a hash of all that its files depend on."""
        described = {"request": self._request.options, "weights": self._weights.key}
        described |= {"written": {"gif": self.gif, "wav": self.wav, "score": self.score}}
        described |= {"settings": self._settings, "precision": self._precision}
        key = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()
        return f"{self._request.title}-{self._weights.name}-{key[:8]}"

    def _write_picture(self, name: str, page: np.ndarray) -> None:
        """Write an RGB picture to the folder."""
        write_image(self._folder / name, Image.fromarray(page))
        self._files.append(name)
