"""`SetComparison`: compares sets of windows, which are generated, of the data, or of the training pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from callbacks.evaluation.class_comparison import (
    NO_CLASS,
    ComparedClasses,
    LabelledWindows,
    class_numbers,
    class_remark,
    class_table,
    classes_alike,
    compared_classes,
    spread,
    with_notes,
)
from callbacks.reporting.result_table import Column, ResultTable
from datamodules.base import LabelledRollData, RollData, data_of, offered, required
from litscale.metrics.frechet_music import FrechetMusicDistance
from litscale.music import RollFormat, set_distances
from litscale.music.copying import longest_runs
from litscale.music.features import LEAST_NOTES

LEAST_WINDOWS = 3  # of a set with distances within it
Numbers = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ComparedSets:
    """The comparison of sets of windows.

    Attributes:
        distances: feature -> ``overlapping_area``, ``kl_divergence`` and so on (see `litscale.music.set_distances`) of
            the generated windows and the data; empty if either are too few.
        training: the same for windows of the training pieces and the data.
        copies: ``generated`` and ``data`` -> how much of these windows occurs in training pieces, see `copied`.
        frechet: the Frechet music distance of the generated windows and the data.
        classes: the classes to which windows are nearest; empty if the data have no classes.
        too_short: number of windows that have no features, since they have fewer than two notes.
    """

    distances: dict[str, Numbers] = field(default_factory=dict)
    training: dict[str, Numbers] = field(default_factory=dict)
    copies: dict[str, Numbers] = field(default_factory=dict)
    frechet: float | None = None
    classes: ComparedClasses = field(default_factory=ComparedClasses)
    too_short: int = 0

    def logged(self) -> Numbers:
        """Return name on dashboards, without the part ``music/`` -> number."""
        values = {
            f"{prefix}{kind}/{name}": row[kind]
            for prefix, rows in (("", self.distances), ("training/", self.training))
            for name, row in rows.items()
            for kind in ("overlapping_area", "kl_divergence")
        }
        values |= {f"copies/{part}/{name}": value for part, row in self.copies.items() for name, value in row.items()}
        values |= self.classes.logged()
        return values if self.frechet is None else values | {"frechet_music_distance": self.frechet}


class WindowSet:
    """Collects windows of this rank, batch by batch."""

    def __init__(self) -> None:
        self.canvases: list[Tensor] = []
        self.labels: list[Tensor] = []

    def add(self, canvases: Tensor, labels: Tensor | None) -> None:
        """Add windows, uint8 ``[B, 1, pitch, step]``, and the class of each, int64 ``[B]``, if they have classes."""
        self.canvases.append(canvases[:, 0].cpu())
        self.labels.append(torch.full((len(canvases),), NO_CLASS) if labels is None else labels.cpu().long())


class SetComparison:
    """Collects windows, and compares them when all are collected.

    Args:
        form: the format of the windows.
        clamp_weights: weights file for `FrechetMusicDistance`; None to leave this distance out.
        class_names: name of each class of the windows; if it is empty, no classes are compared.

    Raises:
        ModuleNotFoundError: the package that `FrechetMusicDistance` needs is not installed.
        FileNotFoundError: the file of weights does not exist.
    """

    def __init__(self, form: RollFormat, clamp_weights: str | None = None, class_names: Sequence[str] = ()) -> None:
        self.form, self.class_names = form, class_names
        self.frechet = None if clamp_weights is None else FrechetMusicDistance(clamp_weights)
        self.generated, self.data = WindowSet(), WindowSet()

    def compute(self, trainer: Trainer, pl_module: LightningModule) -> ComparedSets:
        """Compare the windows of all ranks, which must call this together; rank zero does the work.

        Raises:
            MisconfigurationException: the data module gives no training pieces.
        """
        pieces = required(data_of(trainer), RollData, self, "set the option sets to false")
        generated, data = (self._gathered(part, trainer, pl_module) for part in (self.generated, self.data))
        result = ComparedSets()
        if trainer.is_global_zero:
            labelled = offered(pieces, LabelledRollData) if self.class_names else None
            labels = [] if labelled is None else labelled.roll_labels("train")
            result = self._compared(generated, data, list(pieces.rolls("train")), labels)
        return trainer.strategy.broadcast(result)

    def _compared(
        self, generated: LabelledWindows, data: LabelledWindows, training: list[np.ndarray], labels: Sequence[int]
    ) -> ComparedSets:
        """Compare windows, and whole training pieces, whose ``labels`` are empty if their classes are not known."""
        # 1. as many training windows as generated ones, from all over the pieces
        steps = generated.windows.shape[-1]
        counts = [piece.shape[1] // steps for piece in training]
        windows = [
            piece[:, number * steps : (number + 1) * steps]
            for piece, count in zip(training, counts, strict=True)
            for number in range(count)
        ]
        chosen = [windows[number] for number in spread(len(windows), len(generated))]
        # 2. distances of features
        ours, theirs, known = (with_notes(part, self.form)[0] for part in (generated.windows, data.windows, chosen))
        enough = min(len(ours), len(theirs)) >= LEAST_WINDOWS
        # 3. classes
        classes = ComparedClasses()
        if self.class_names:
            of_pieces = np.asarray(labels if len(labels) else [NO_CLASS] * len(training), dtype=np.int64)
            of_windows = np.repeat(of_pieces, counts)
            alike = classes_alike(generated.labels, of_windows)
            others = LabelledWindows(np.array([windows[number] for number in alike]), of_windows[alike])
            classes = compared_classes(generated, data, others, self.form, self.class_names)
        # 4. copies, and the distance of features that were learned
        parts = (("generated", generated), ("data", data))
        copies = {part: copied(found.windows, training) for part, found in parts}
        return ComparedSets(
            distances=set_distances(ours, theirs) if enough else {},
            training=set_distances(known, theirs) if enough and len(known) >= LEAST_WINDOWS else {},
            copies={part: row for part, row in copies.items() if row},
            frechet=self.frechet(ours, theirs) if self.frechet is not None and enough else None,
            classes=classes,
            too_short=len(generated) + len(data) - len(ours) - len(theirs),
        )

    def _gathered(self, part: WindowSet, trainer: Trainer, pl_module: LightningModule) -> LabelledWindows:
        """Return the windows of all ranks. Rank zero must have some generated ones, which give the number of steps."""
        symbols, labels = (
            torch.cat([values.flatten() for values in batches] or [torch.empty(0, dtype=dtype)])
            for batches, dtype in ((part.canvases, torch.uint8), (part.labels, torch.int64))
        )
        if trainer.world_size > 1:
            symbols, labels = (
                torch.cat(gather_all_tensors(own.to(pl_module.device))).cpu() for own in (symbols, labels)
            )
        steps = self.generated.canvases[0].shape[-1] if self.generated.canvases else 1
        return LabelledWindows(symbols.view(-1, self.form.pitches, steps).numpy(), labels.numpy())


def copied(windows: np.ndarray, training: Sequence[np.ndarray]) -> Numbers:
    """Measure how much of windows appears in training pieces, see `litscale.music.copying.longest_runs`.

    Args:
        windows: uint8 ``[n, pitch, step]``.
        training: uint8 ``[pitch, step]`` each.

    Returns:
        ``longest_run`` (the mean over the windows) and ``longest_run_max`` in steps, and ``found``, the share of
        windows that occur in training pieces as a whole; empty without windows.
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
    """Return the tables of a comparison, without those that would be empty."""
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
    shown = [(distances, rows), (copies, sets.copies), (learned, sets.frechet is not None)]
    tables = [table for table, there in shown if there]
    return [*tables, class_table(sets.classes)] if sets.classes.own else tables


def set_numbers(sets: ComparedSets) -> dict[str, Any]:
    """Return the comparison as JSON values; empty if there is none."""
    if sets == ComparedSets():
        return {}
    distances = {"generated": sets.distances, "training": sets.training}
    numbers = {"set_distances": distances, "copies": sets.copies, "frechet_music_distance": sets.frechet}
    return numbers | ({"nearest_class": class_numbers(sets.classes)} if sets.classes.own else {})


def remark(sets: ComparedSets) -> str:
    """Return sentences that readers of the tables have to know; empty if there are none."""
    parts = [class_remark(sets.classes)] if sets.classes.missing else []
    if sets.too_short:
        parts.append(f"{sets.too_short} windows have fewer than {LEAST_NOTES} notes, and no features.")
    if sets.copies and not sets.distances:
        parts.append(f"Distances of sets take at least {LEAST_WINDOWS} samples and as many windows of the data.")
    return " ".join(parts)
