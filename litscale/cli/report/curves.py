"""Curves of a run: what it logged over its steps, as CSV or TensorBoard files, and their pictures."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from callbacks.reporting.result_table import Column, ResultTable
from litscale.storage.files import named_errors

Curve = dict[int, float]  # step -> value
LOGS = ("**/metrics.csv", "**/events.out.tfevents.*")  # patterns of what loggers write into a run folder
TRAINING = "train/"
TITLE = 48  # characters of a title, for which a picture is wide enough
POINTS = 400  # of a curve that a picture shows
COLORS = ("#3b6fb6", "#d9822b", "#3d8f5f", "#a14f9c", "#b5403c", "#6b6f76", "#8a6d1f", "#2a9aa8")
STYLES = ("-", "--", ":", "-.")  # so that many runs, and runs without colour, are told apart


def read_curves(files: Iterable[Path]) -> dict[str, Curve]:
    """Return metric -> step -> value as a training logged them; where attempts overlap, the later one counts.

    Files of evaluations are left out, since Lightning counts their steps from zero.

    Args:
        files: files of a run folder; only those that loggers write are read.

    Raises:
        ValueError: a file is damaged.
    """
    found: dict[str, Curve] = {}
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        logged: dict[str, Curve] = {}
        if path.name == "metrics.csv":
            logged = _csv_curves(path)
        elif path.name.startswith("events.out.tfevents."):
            logged = _tensorboard_curves(path)
        if any(name.startswith(TRAINING) for name in logged):
            for name, curve in logged.items():
                found.setdefault(name, {}).update(curve)
    return {
        name: dict(sorted(curve.items())) for name, curve in sorted(found.items(), key=lambda item: _order(item[0]))
    }


def as_table(curves: Mapping[str, Curve]) -> ResultTable:
    """Return a table with curves as columns and a row for each step that has a value."""
    rows: dict[str, dict[str, float | str | None]] = {}
    for step in sorted({step for curve in curves.values() for step in curve}):
        rows[str(step)] = {name: curve[step] for name, curve in curves.items() if step in curve}
    return ResultTable("step", {name: Column(name, missing="") for name in curves}, rows)


def _order(name: str) -> tuple[int, str]:
    """Return the sort key of a name: validation first, then tests and training, then all others."""
    prefixes = ("val/", "test/", TRAINING)
    return next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), len(prefixes)), name


def _csv_curves(path: Path) -> dict[str, Curve]:
    """Read the curves of a ``metrics.csv`` of Lightning."""
    found: dict[str, Curve] = {}
    with named_errors(path, "damaged, or no CSV log of Lightning"), path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            row.pop("epoch", None)
            for name, text in row.items():
                if text:
                    _add(found, name, step, float(text))
    return found


def _tensorboard_curves(path: Path) -> dict[str, Curve]:
    """Read the scalars of a TensorBoard event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, Curve] = {}
    with named_errors(path, "damaged, or no event file of TensorBoard"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1, "audio": 1, "tensors": 1})
        events.Reload()
        for name in events.Tags()["scalars"]:
            for point in events.Scalars(name):
                if name not in ("epoch", "hp_metric"):
                    _add(found, name, point.step, point.value)
    return found


def _add(found: dict[str, Curve], name: str, step: int, value: float) -> None:
    """Add a point to a curve if its value is finite, so that a picture can show it."""
    if math.isfinite(value):
        found.setdefault(name, {})[step] = value


def chosen(names: Iterable[str], patterns: Iterable[str], most: int) -> tuple[list[str], int]:
    """Return the names that match a pattern, in order, up to a maximum, and how many more there are."""
    matching = [name for name in dict.fromkeys(names) if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return matching[:most], max(0, len(matching) - most)


def picture(name: str, curves: Mapping[str, Curve], runs: Iterable[str]) -> str:
    """Draw one metric with a line for each run that has it; return a data URI of SVG, or of PNG if that is smaller.

    Args:
        name: name of the metric.
        curves: run -> step -> value.
        runs: all runs of the report, whose places give the colours.
    """
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    panel = figure.subplots()
    for i, run in enumerate(runs):
        points = _thinned(curves.get(run, {}))
        if points:
            color, style = COLORS[i % len(COLORS)], STYLES[i // len(COLORS) % len(STYLES)]
            marker = "." if len(points) < 30 else ""
            panel.plot(list(points), list(points.values()), color=color, ls=style, marker=marker, lw=1.2, label=run)
    panel.set_title(_plain(_in_lines(name)), fontsize=9)
    panel.set_xlabel("step", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.grid(color="#e3e5e8", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        panel.legend([_plain(str(line.get_label())) for line in panel.lines], frameon=False, fontsize=7)
    with mpl.rc_context({"svg.hashsalt": "litscale", "svg.fonttype": "none"}):
        vector = _saved(figure, "svg", metadata={"Date": None})
    raster = _saved(figure, "png", dpi=130)
    kind, content = ("svg+xml", vector) if len(vector) <= len(raster) else ("png", raster)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _thinned(curve: Curve) -> Curve:
    """Return at most `POINTS` points of a curve, evenly spread, from the last one back to the first ones."""
    every = -(-len(curve) // POINTS) or 1
    return {step: value for i, (step, value) in enumerate(reversed(curve.items())) if i % every == 0}


def _in_lines(name: str) -> str:
    """Break a name between its parts into as many lines as it needs."""
    lines = [""]
    for part in re.findall(r"[^/_ ]*[/_ ]|[^/_ ]+", name):
        if lines[-1] and len(lines[-1] + part) > TITLE:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape a text so that matplotlib sees no formulas in it."""
    return text.replace("$", r"\$")


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
