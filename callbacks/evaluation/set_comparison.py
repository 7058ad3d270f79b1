"""`SetComparison`: sets of windows compared with one another, those generated, the data's and those of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from callbacks.reporting.result_table import Column, ResultTable
from datamodules.base import RollData, data_of, required
from litscale.metrics.frechet_music import FrechetMusicDistance
from litscale.music import Roll, RollFormat, notes, set_distances
from litscale.music.copying import longest_runs

LEAST_NOTES = 2  # of a window with features
LEAST_WINDOWS = 3  # of a set with distances within it
Numbers = dict[str, float]


@dataclass(frozen=True)
class ComparedSets:
    """How sets of windows compare.

    Attributes:
        distances: feature -> ``overlapping_area``, ``kl_divergence`` and so on (see `litscale.music.set_distances`) of
            the generated windows and the data; empty where either are too few.
        training: the same of windows of the training pieces and the data.
        copies: ``generated`` and ``data`` -> how much of these windows stands in training pieces, see `copied`.
        frechet: the Frechet music distance of the generated windows and the data.
        too_short: windows that have no features, since they have fewer than two notes.
    """

    distances: dict[str, Numbers] = field(default_factory=dict)
    training: dict[str, Numbers] = field(default_factory=dict)
    copies: dict[str, Numbers] = field(default_factory=dict)
    frechet: float | None = None
    too_short: int = 0

    def logged(self) -> Numbers:
        """The numbers by the names that dashboards see, without the part ``music/``."""
        values = {
            f"{prefix}{kind}/{name}": row[kind]
            for prefix, rows in (("", self.distances), ("training/", self.training))
            for name, row in rows.items()
            for kind in ("overlapping_area", "kl_divergence")
        }
        values |= {f"copies/{part}/{name}": value for part, row in self.copies.items() for name, value in row.items()}
        return values if self.frechet is None else values | {"frechet_music_distance": self.frechet}


class SetComparison:
    """Keeps windows, and compares them when all are there.

    Args:
        form: what their symbols mean.
        clamp_weights: file for `FrechetMusicDistance`, which is not computed without.

    Raises:
        ModuleNotFoundError: as `FrechetMusicDistance` does.
        FileNotFoundError: likewise.
    """

    def __init__(self, form: RollFormat, clamp_weights: str | None = None) -> None:
        self.form = form
        self.frechet = None if clamp_weights is None else FrechetMusicDistance(clamp_weights)
        self.generated: list[Tensor] = []
        self.data: list[Tensor] = []

    def add(self, part: list[Tensor], canvases: Tensor) -> None:
        """Add windows, uint8 ``[B, 1, pitch, step]``, to ``generated`` or ``data``."""
        part.append(canvases[:, 0].cpu())

    def compute(self, trainer: Trainer, pl_module: LightningModule) -> ComparedSets:
        """Compare the windows of all ranks, which must call this together; rank zero does the work.

        Raises:
            MisconfigurationException: the data module has no pieces for the training.
        """
        pieces = required(data_of(trainer), RollData, self, "set the option sets to false")
        generated, data = (self._gathered(part, trainer, pl_module) for part in (self.generated, self.data))
        result = ComparedSets()
        if trainer.is_global_zero:
            result = self._compared(generated, data, list(pieces.rolls("train")))
        return trainer.strategy.broadcast(result)

    def _compared(self, generated: np.ndarray, data: np.ndarray, training: list[np.ndarray]) -> ComparedSets:
        """Compare windows, uint8 ``[n, pitch, step]``, and whole pieces of the training."""
        # 1. as many training windows as generated ones, from all over the pieces
        steps = generated.shape[-1]
        windows = [
            piece[:, start : start + steps]
            for piece in training
            for start in range(0, piece.shape[1] - steps + 1, steps)
        ]
        chosen = np.linspace(0, len(windows) - 1, min(len(windows), len(generated))).round().astype(int)
        # 2. distances of features
        ours, theirs, known = (self._rolls(part) for part in (generated, data, [windows[i] for i in chosen]))
        enough = min(len(ours), len(theirs)) >= LEAST_WINDOWS
        # 3. copies, and the distance of features that were learned
        copies = {part: copied(found, training) for part, found in (("generated", generated), ("data", data))}
        return ComparedSets(
            set_distances(ours, theirs) if enough else {},
            set_distances(known, theirs) if enough and len(known) >= LEAST_WINDOWS else {},
            {part: row for part, row in copies.items() if row},
            self.frechet(ours, theirs) if self.frechet is not None and enough else None,
            len(generated) + len(data) - len(ours) - len(theirs),
        )

    def _rolls(self, windows: Sequence[np.ndarray] | np.ndarray) -> list[Roll]:
        """Those windows that have features."""
        return [roll for roll in (Roll(window, self.form) for window in windows) if len(notes(roll)) >= LEAST_NOTES]

    def _gathered(self, part: list[Tensor], trainer: Trainer, pl_module: LightningModule) -> np.ndarray:
        """The windows of all ranks, uint8 ``[n, pitch, step]``; those of rank zero, which has some, give the steps."""
        own = torch.cat([windows.flatten() for windows in part] or [torch.empty(0, dtype=torch.uint8)])
        if trainer.world_size > 1:
            own = torch.cat(gather_all_tensors(own.to(pl_module.device))).cpu()
        steps = self.generated[0].shape[-1] if self.generated else 1
        return own.view(-1, self.form.pitches, steps).numpy()


def copied(windows: np.ndarray, training: Sequence[np.ndarray]) -> Numbers:
    """How much of windows stands in training pieces, see `litscale.music.copying.longest_runs`.

    Args:
        windows: uint8 ``[n, pitch, step]``.
        training: uint8 ``[pitch, step]`` each.

    Returns:
        ``longest_run`` (the mean over the windows) and ``longest_run_max`` in steps, and ``found``, the share of
        windows that stand there as a whole; empty without windows.
    """
    if not len(windows):
        return {}
    runs = longest_runs(list(windows), training)
    return {
        "longest_run": float(runs.mean()),
        "longest_run_max": float(runs.max()),
        "found": float((runs == windows.shape[-1]).mean()),
    }


def set_tables(sets: ComparedSets) -> list[ResultTable]:
    """The tables of a comparison."""
    columns = {
        "overlapping_area": Column("overlapping area"),
        "kl_divergence": Column("KL divergence"),
        "training_overlapping_area": Column("overlapping area of training windows"),
        "training_kl_divergence": Column("KL divergence of training windows"),
    }
    rows = {
        name: row | {f"training_{kind}": value for kind, value in sets.training.get(name, {}).items()}
        for name, row in sets.distances.items()
    }
    title = "Distances of features within the samples, and of samples from the data (Yang and Lerch)"
    distances = ResultTable("feature", columns, rows, title)
    runs = {
        "longest_run": Column("longest run, mean"),
        "longest_run_max": Column("longest run, maximum"),
        "found": Column("found as a whole", "{:.1%}"),
    }
    copies = ResultTable("windows", runs, sets.copies, "Steps that stand in training pieces, transposed or not")
    frechet = {"CLaMP 2": {"distance": sets.frechet}}
    learned = ResultTable("Frechet music distance (lower is better)", {"distance": Column("")}, frechet)
    shown = ((distances, rows), (copies, sets.copies), (learned, sets.frechet is not None))
    return [table for table, there in shown if there]


def set_numbers(sets: ComparedSets) -> dict[str, Any]:
    """The comparison as JSON values; empty if there is none."""
    if sets == ComparedSets():
        return {}
    distances = {"generated": sets.distances, "training": sets.training}
    return {"set_distances": distances, "copies": sets.copies, "frechet_music_distance": sets.frechet}


def remark(sets: ComparedSets) -> str:
    """What a reader of the tables has to know."""
    parts = []
    if sets.too_short:
        parts.append(f"{sets.too_short} windows have fewer than {LEAST_NOTES} notes, and no features.")
    if sets.copies and not sets.distances:
        parts.append(f"Distances of sets take at least {LEAST_WINDOWS} samples and as many windows of the data.")
    return " ".join(parts)
