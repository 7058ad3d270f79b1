"""The table and the picture of ``litscale bench fractal``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from callbacks.reporting.result_table import Column, Report, ResultTable
from litscale.cli.bench.fractal_grid import TRAINING

COLOURS = {"AR": "#3b6fb6", "MAR": "#d9822b", "configured": "#8e5ea2"}
"""First word of a row's name -> colour."""
MARKERS = "osD^vP*X<>hd"


def fractal_report(
    weights: str,
    checkpoints: Mapping[str, Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    unit: str,
    device: str,
) -> Report:
    """Return the report, which shows all ways side by side.

    Args:
        weights: a text that says which networks are trained.
        checkpoints: option -> ``checkpoint``, ``step`` and ``sha256`` of each given checkpoint.
        settings: the settings on which the numbers depend.
        rows: name of a way -> its numbers.
        unit: unit of the likelihood.
        device: type of the device on which the benchmark ran.
    """
    # 1. the table
    columns = {
        "parameters": Column("parameters", "{:,.0f}", right=True),
        "seconds": Column("seconds per canvas", "{:.3g}", right=True),
        "seconds_min": Column("fastest", "{:.3g}", right=True),
        "seconds_max": Column("slowest", "{:.3g}", right=True),
        "ratio": Column("time / AR's", "{:.2f}", right=True),
        "operators": Column("operators", "{:.0f}", right=True),
        "passes_per_patch": Column("passes per patch", "{:.1f}", right=True),
        "accepted_per_pass": Column("symbols per pass", "{:.1f}", right=True),
        unit: Column(unit.replace("_", " "), "{:.4f}", right=True),
    }
    clock = "CPU seconds of one thread" if device == "cpu" and settings["threads"] == 1 else f"seconds, {device}"
    caption = f"{weights}; {clock}, medians of {settings['repeats']}"
    table = ResultTable("way", columns, rows, caption)
    # 2. what its columns mean, and what they depend on
    explained = _explained(settings["train_batch_size"], unit if any(unit in row for row in rows.values()) else None)
    drawn = ", ".join(f"{option} {value}" for option, value in settings.items() if value is not None)
    used = [
        f"{option}: `{each['checkpoint']}`, step {each['step']}, SHA-256 {each['sha256']}"
        for option, each in checkpoints.items()
    ]
    remark = "\n\n".join([*explained, f"With {drawn}.", *used])
    # 3. the same for programs
    data = {
        "name": "bench_fractal",
        "facts": caption,
        "checkpoints": dict(checkpoints),
        "settings": dict(settings),
        "rows": dict(rows),
    }
    return Report("bench_fractal", "AR and MAR", [table], data, remark=remark)


def _explained(train_batch_size: int, unit: str | None) -> list[str]:
    """Return paragraphs that explain the columns; ``unit`` is that of the likelihood, None if there is none."""
    paragraphs = [
        "Seconds per canvas: the median round, by the canvases that are worked on together; fastest and slowest: the "
        f"same of single rounds. A training step is of a batch of {train_batch_size} canvases.",
        "Time / AR's: by an AR training step, or by sequential AR sampling.",
        "Operators: dispatched for a batch.",
        "Passes per patch: of the network over all symbols of a patch that is decoded in parallel; symbols per pass: "
        "those that each of them finishes.",
    ]
    if unit is not None:
        paragraphs.append(
            f"{unit.replace('_', ' ').capitalize()}: negative log-likelihood of the validation data, with MAR in as "
            "many steps of random orders, at temperature 1 and without guidance. AR's is exact, MAR's an upper bound."
        )
    return paragraphs


def seconds_picture(data: Mapping[str, Any], unit: str) -> Figure:
    """Draw a line for each way of sampling: its network's likelihood over seconds, or its seconds over patches.

    Args:
        data: the report's data, see :func:`fractal_report`.
        unit: unit of the likelihood.
    """
    # 1. the points of each way, which are of several numbers of patches
    rows: dict[str, dict[str, Any]] = data["rows"]
    sampled: dict[str, list[Mapping[str, Any]]] = {}
    for name, row in rows.items():
        _, label = name.split(", ", 1)
        if not label.endswith(TRAINING):
            sampled.setdefault(label, []).append(row)
    sizes = sorted({int(row["patches"]) for row in rows.values()})
    scored = any(unit in row for row in rows.values())
    across, up = ("seconds", unit) if scored else ("patches", "seconds")
    # 2. a line for each way
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axis = figure.subplots()
    used: Counter[str] = Counter()
    for label, every in sampled.items():
        kind = label.split()[0]
        points = [(row[across], row[up], row["patches"]) for row in every if up in row]
        if not points:
            continue
        xs, ys, _ = zip(*points, strict=True)
        marker = MARKERS[used[kind] % len(MARKERS)]
        used[kind] += 1
        axis.plot(xs, ys, color=COLOURS[kind], marker=marker, linewidth=0.8, label=label)
        for x, y, patches in points if scored and len(sizes) > 1 else []:
            axis.annotate(f"{patches:.0f}", (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7)
    # 3. axes
    axis.set_xscale("log")
    if not scored:
        axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:g}")
        scale.set_minor_formatter("{x:g}" if scale.get_scale() == "log" else "")
    if not scored:
        axis.set_xticks(sizes)
        axis.set_xticks([], minor=True)
    places = "; at the points: patches" if len(sizes) > 1 else f", {sizes[0]} patches"
    seconds = "seconds per canvas (logarithmic)"
    names = (seconds + places, unit.replace("_", " ")) if scored else ("patches (logarithmic)", seconds)
    axis.set(xlabel=names[0], ylabel=names[1])
    steps = ", ".join(f"{Path(each['checkpoint']).name} step {each['step']}" for each in data["checkpoints"].values())
    title = f"{data['facts']}\ncfg {data['settings']['cfg']:g}" + (f"; {steps}" if steps else "")
    axis.set_title(title, fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure
