"""Files of the scores of ``validate`` and ``test``, one for each evaluated checkpoint and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from callbacks.evaluation.evaluated_weights import EvaluatedWeights
from callbacks.reporting.json_text import json_text
from callbacks.reporting.result_table import Column, ResultTable
from litscale.storage.files import write_atomically
from litscale.storage.fingerprints import of_file


@dataclass(frozen=True)
class Scores:
    """The scores of an evaluation, with the weights and settings that they belong to.

    Attributes:
        checkpoint: path of the checkpoint; None if the model loaded its weights itself, or had none.
        step: number of optimiser steps of the checkpoint, if it records them.
        sha256: hash of the checkpoint's file.
        weight_files: option of the model -> ``file`` and ``sha256`` of the weights that the model loaded itself.
        settings: how the scores were made: ``precision``, ``batches`` (the trainer's limit, 1.0 for all), ``seed``, and
            the options of ``model``, ``data`` and ``callbacks``; with a limit also the number of ``processes``.
        time: when the scores were written, ISO 8601 in UTC.
        scores: name -> number, or None if it was not finite.
    """

    checkpoint: str | None
    step: int | None
    sha256: str | None
    weight_files: dict[str, dict[str, str]]
    settings: dict[str, Any]
    time: str
    scores: dict[str, float | None]

    @property
    def source(self) -> str:
        """The weights as people read them, such as ``last.ckpt, step 700``, and unusual settings of the evaluation."""
        if self.checkpoint is None:
            weights = ", ".join(Path(given["file"]).name for given in self.weight_files.values()) or "untrained"
        else:
            path = Path(self.checkpoint)
            weights = path.name + ("" if self.step is None else f", step {self.step}") + self._fate(path)
        return weights + unusual(self.settings)

    def _fate(self, path: Path) -> str:
        """Return a note if the checkpoint was removed or overwritten since; empty if it was not."""
        if not path.is_file():
            return " (removed since)"
        # Not by its time, which copies may keep or change.
        return "" if of_file(path) == self.sha256 else " (overwritten since)"


def unusual(settings: Mapping[str, Any]) -> str:
    """Return unusual settings of scores as text; empty if there are none.

    The text is such as ``, bf16-mixed, stride 64, 5 of the batches``. With a stride, windows of rolls overlap, and each
    step is predicted from a longer past.
    """
    precision, batches = settings.get("precision", "32-true"), settings.get("batches", 1.0)
    stride = ((settings.get("data") or {}).get("init_args", {}).get("evaluation") or {}).get("stride")
    each = f" of each of {count} processes" if (count := settings.get("processes", 1)) > 1 else ""
    found = [
        "" if precision == "32-true" else precision,
        "" if stride is None else f"stride {stride}",
        "" if is_whole(batches) else f"{batches} of the batches{each}",
    ]
    return "".join(f", {text}" for text in found if text)


def is_whole(batches: float) -> bool:
    """Return whether a limit of batches is none, which is 1.0; the whole number 1 is one batch."""
    return isinstance(batches, float) and batches == 1.0


def write_scores(
    folder: Path, stage: str, weights: EvaluatedWeights, settings: Mapping[str, Any], values: Mapping[str, float]
) -> Path:
    """Write scores to ``scores_<stage>_<step>_<hash>.json`` and return its path; the hash is of weights and settings.

    Args:
        folder: an existing folder.
        stage: ``validate`` or ``test``.
        weights: the evaluated weights.
        settings: settings of the evaluation, see `Scores`.
        values: name -> number; those that are not finite become null.

    Raises:
        OSError: the file could not be written.
    """
    made = {"settings": dict(settings), "time": datetime.now(UTC).isoformat(), "scores": dict(values)}
    key = sha256(weights.key.encode() + json_text(dict(settings))).hexdigest()
    return write_atomically(
        folder / f"scores_{stage}_{weights.name}_{key[:8]}.json", json_text(weights.metadata | made)
    )


def read_scores(path: Path) -> Scores:
    """Read a file of `write_scores`.

    Raises:
        ValueError: the file is damaged; the message names it and says how to replace it.
    """
    try:
        scores = Scores(**json.loads(path.read_bytes()))
        datetime.fromisoformat(scores.time)
        if not all(value is None or isinstance(value, int | float) for value in scores.scores.values()):
            raise ValueError("a score is not a number")
    except (ValueError, TypeError, AttributeError) as error:
        stage = path.name.split("_")[1]
        raise ValueError(f"{path} is damaged ({error}): delete it and run litscale {stage} again") from error
    return scores


def newest_scores(folder: Path, stage: str) -> Scores | None:
    """Return the scores of a stage, ``validate`` or ``test``, with the latest recorded time; None if there are none.

    Raises:
        ValueError: a file of scores of this stage is damaged.
    """
    scores = [read_scores(path) for path in folder.glob(f"scores_{stage}_*.json")]
    return max(scores, key=lambda each: datetime.fromisoformat(each.time), default=None)


def not_finite(values: Mapping[str, Any]) -> list[str]:
    """Return the names of scores that are NaN or infinite."""
    return [name for name, value in values.items() if not math.isfinite(value)]


def as_table(values: Mapping[str, float], settings: Mapping[str, Any]) -> ResultTable:
    """Return a table of scores with their whole names, below the unusual ones among the settings."""
    rows = {name: {"value": value} for name, value in sorted(values.items())}
    return ResultTable(
        "score", {"value": Column("value", "{:.5g}", "not finite", right=True)}, rows, f"Scores{unusual(settings)}"
    )
