"""The scores of an evaluation over the steps of the training: a table, a picture, and which step is the best."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from callbacks.reporting.figures import write_picture
from callbacks.reporting.json_text import json_text
from callbacks.reporting.result_table import Column, ResultTable
from litscale.cli.evaluate.folder import Evaluated
from litscale.storage.files import write_atomically

NAME = "scores"
COLUMNS = 3  # of the picture
# The last word of a score's name -> whether a lower or a higher one is better.
LOWER = "fid kid nats_per_step nats_per_token nats_per_image bits_per_dim bits_per_dim_unconditional loss lpips rfid"
HIGHER = "precision recall inception_score class_accuracy accuracy psnr ssim note_f1 accepted_scales_per_call speedup"
MODES = dict.fromkeys(LOWER.split(), "min") | dict.fromkeys(HIGHER.split(), "max")


def write_tables(folder: Path, evaluated: Mapping[int, Evaluated], modes: Mapping[str, str], unusual: str = "") -> None:
    """Write ``scores.csv``, ``scores.md``, ``scores.png`` and a ``best_by_<score>.json`` for each score with a mode.

    Args:
        folder: folder of the evaluation.
        evaluated: step -> its scores, in order; at least one.
        modes: score -> ``min`` or ``max``, beside those of `MODES`.
        unusual: unusual settings of the evaluation, for the heading.

    Raises:
        OSError: a file could not be written.
    """
    best = best_steps(evaluated, modes)
    table = as_table(evaluated, best)
    write_atomically(folder / f"{NAME}.csv", table.csv().encode())
    write_atomically(folder / f"{NAME}.md", f"# Scores over steps{unusual}\n\n{table.markdown()}\n".encode())
    write_picture(picture(evaluated, best), folder / f"{NAME}.png")
    for name, step in best.items():
        record = evaluated[step]
        marked = {"metric": name, "mode": _mode(name, modes), "value": record.scores[name], "step": step}
        content = marked | {"checkpoint": record.checkpoint}
        write_atomically(folder / f"best_by_{re.sub('[^A-Za-z0-9]+', '_', name)}.json", json_text(content))


def best_steps(evaluated: Mapping[int, Evaluated], modes: Mapping[str, str]) -> dict[str, int]:
    """Return score -> the first step with its best value, for scores of which lower or higher is known to be better."""
    best = {}
    for name in _names(evaluated):
        values = {step: value for step, each in evaluated.items() if (value := each.scores.get(name)) is not None}
        mode = _mode(name, modes)
        if values and mode is not None:
            best[name] = min(values, key=lambda step: values[step] if mode == "min" else -values[step])
    return best


def as_table(evaluated: Mapping[int, Evaluated], best: Mapping[str, int]) -> ResultTable:
    """Return a table with steps as rows and scores as columns; the title names the best steps."""
    rows: dict[str, dict[str, float | str | None]] = {
        str(step): {**each.scores, "checkpoint": Path(each.checkpoint).name} for step, each in evaluated.items()
    }
    columns = {name: Column(name, "{:.5g}", "not finite") for name in _names(evaluated)}
    columns["checkpoint"] = Column("checkpoint")
    title = "The best: " + ", ".join(f"{name} at step {step}" for name, step in best.items()) if best else ""
    return ResultTable("step", columns, rows, title)


def picture(evaluated: Mapping[int, Evaluated], best: Mapping[str, int]) -> Figure:
    """Draw a panel for each score over the steps, with its best point marked."""
    names = _names(evaluated)
    lines = -(-len(names) // COLUMNS) or 1
    width = min(len(names), COLUMNS) or 1
    figure = Figure(figsize=(4 * width, 2.6 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, width, squeeze=False).flat
    for name, panel in zip(names, panels, strict=False):
        points = {step: value for step, each in evaluated.items() if (value := each.scores.get(name)) is not None}
        panel.plot(list(points), list(points.values()), color="#3b6fb6", marker=".", linewidth=1.2)
        if name in best:
            panel.plot(best[name], points[best[name]], "o", color="#d9822b", label=f"best: step {best[name]}")
            panel.legend(frameon=False, fontsize=7)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.grid(color="#e3e5e8", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in figure.axes[len(names) :]:
        panel.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    return figure


def _names(evaluated: Mapping[int, Evaluated]) -> list[str]:
    """Return the names of all scores, in the order in which they were logged."""
    return list(dict.fromkeys(name for each in evaluated.values() for name in each.scores))


def _mode(name: str, modes: Mapping[str, str]) -> str | None:
    return modes.get(name) or MODES.get(name.rsplit("/", 1)[-1])
