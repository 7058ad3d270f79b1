"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from callbacks.reporting.result_table import Column, ResultTable
from litscale.cli.evaluate.table import as_table, best_steps
from litscale.cli.report.compare import score_table
from litscale.cli.report.contents import Limits, RunContents, read_contents
from litscale.cli.report.curves import COLORS, Curve, chosen, picture
from litscale.storage.manifest import RUNNING

METRICS = ("*",)
MOST_CURVES = 48
MOST_SCORES = 12  # before the others are folded away
NOTHING: tuple[Any, ...] = (None, [], {}, "")  # values of a manifest that say nothing


@dataclass(frozen=True)
class Selection:
    """What a report shows.

    Attributes:
        limits: how much of a run is read.
        metrics: patterns of the names of curves.
        most_curves: largest number of pictures of curves.
    """

    limits: Limits = field(default_factory=Limits)
    metrics: Sequence[str] = METRICS
    most_curves: int = MOST_CURVES


@dataclass(frozen=True)
class CurvePicture:
    """A picture of a metric over the steps: its name and a data URI."""

    name: str
    uri: str


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Return name -> folder; a name is the last part of a path, or the whole path if several share that part."""
    last = [folder.resolve().name for folder in folders]
    pairs = zip(folders, last, strict=True)
    return {name if last.count(name) == 1 else str(folder): folder for folder, name in pairs}


def report(folders: Sequence[Path], selection: Selection) -> str:
    """Return the report on runs, as HTML.

    Args:
        folders: the run folders; one that is given twice counts once.
        selection: what is shown.

    Raises:
        FileNotFoundError: there is no such folder, or it has no config.yaml.
        ValueError: a file of a run is damaged; the message names it.
    """
    # 1. read
    distinct = list({folder.resolve(): folder for folder in folders}.values())
    runs = [read_contents(folder, name, selection.limits) for name, folder in named(distinct).items()]
    # 2. draw a picture for each metric of any run
    curves: dict[str, dict[str, Curve]] = {}
    for run in runs:
        for metric, curve in _all_curves(run).items():
            curves.setdefault(metric, {})[run.name] = curve
    names, more = chosen(curves, selection.metrics, selection.most_curves)
    pictures = [CurvePicture(name, picture(name, curves[name], [run.name for run in runs])) for name in names]
    # 3. fill the template
    tables = score_table({run.name: newest for run in runs if (newest := _newest(run))})
    return (
        environment()
        .get_template("report.html")
        .render(
            runs=runs,
            colors={run.name: COLORS[i % len(COLORS)] for i, run in enumerate(runs)},
            summary=_lines(_summary(runs)),
            scores=_lines(tables) if tables.rows else None,
            most_scores=MOST_SCORES,
            evaluations={run.name: _evaluations(run) for run in runs},
            attempts={run.name: _lines(_attempts(run)) for run in runs if run.manifest is not None},
            pictures=pictures,
            more_curves=more,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def environment() -> Environment:
    """Return the environment of the templates, in which all that comes from files is escaped."""
    loader = PackageLoader("litscale.cli.report")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["breakable"] = _breakable
    return made


def _breakable(name: str) -> Markup:
    """Return a name as HTML that a narrow column may break after ``_`` and ``/``, and before a capital."""
    return Markup(re.sub(r"(?<=[_/])(?=\w)|(?<=[a-z])(?=[A-Z])", "<wbr>", str(escape(name))))


def _lines(table: ResultTable) -> dict[str, Any]:
    """Return the head and the rows of a table, for the template."""
    head, *rows = table.lines()
    return {"head": head, "rows": rows}


def _newest(run: RunContents) -> tuple[Any, str] | None:
    """Return the scores that a comparison shows, and their stage; None if there are none."""
    return next(((scores, stage) for stage, scores in run.scores.items()), None)


def _all_curves(run: RunContents) -> dict[str, Curve]:
    """Return the curves of the training's log and, as ``evaluation/NAME/...``, of scores at several steps."""
    scored: dict[str, Curve] = {}
    for name, evaluated in run.evaluations.items():
        for step, record in evaluated.items():
            for score, value in record.scores.items():
                if value is not None and len(evaluated) > 1:  # of one step a table says more than a dot
                    scored.setdefault(f"evaluation/{name}/{score}", {})[step] = value
    return run.curves | scored


def _evaluations(run: RunContents) -> dict[str, dict[str, Any]]:
    """Return the scores of each evaluation over the steps, and a sentence on the best ones."""
    tables = {}
    for name, evaluated in run.evaluations.items():
        if evaluated:
            table = as_table(evaluated, best_steps(evaluated, {}))
            tables[name] = _upright(*table.lines()) | {"title": table.title}
    return tables


def _upright(head: list[str], *rows: list[str]) -> dict[str, Any]:
    """Transpose a table with more scores than steps, and put its last column, the checkpoints, first."""
    if len(rows) >= len(head) - 2:
        return {"head": head, "rows": rows, "scores": False}
    first, *scores, checkpoints = zip(head, *rows, strict=True)
    return {"head": first, "rows": [checkpoints, *scores], "scores": True}


def _summary(runs: Sequence[RunContents]) -> ResultTable:
    """Return a table on the runs and how they ended, with a column for each run."""
    rows: dict[str, dict[str, float | str | None]] = {}
    for run in runs:
        entries: dict[str, str] = {"model": run.model, "data": run.data, "folder": str(run.folder)}
        entries["last logged step"] = "" if run.last_step is None else str(run.last_step)
        entries["checkpoints"] = ", ".join(run.checkpoints)
        if run.manifest is not None:
            newest = run.manifest.attempts[-1]
            lost = run.manifest.status == RUNNING and run.manifest.ended
            entries["status"] = "killed" if lost else run.manifest.status
            entries["attempts"] = str(len(run.manifest.attempts))
            entries["begun"] = str(run.manifest.attempts[0].get("start") or "")[:16].replace("T", " ")
            entries["device hours"] = f"{sum(each.get('device_hours') or 0.0 for each in run.manifest.attempts):.2f}"
            entries["devices"] = str(newest.get("device_count") or "")
        for name, value in entries.items():
            rows.setdefault(name, {})[run.name] = value
    columns = {run.name: Column(run.name, missing="") for run in runs}
    return ResultTable("", columns, {name: row for name, row in rows.items() if any(row.values())})


def _attempts(run: RunContents) -> ResultTable:
    """Return a table of what the attempts of a manifest recorded, with a column for each attempt."""
    rows: dict[str, dict[str, float | str | None]] = {}
    attempts = run.manifest.attempts if run.manifest is not None else []
    for number, attempt in enumerate(attempts):
        for name, value in attempt.items():
            if name not in ("process", "packages") and value not in NOTHING:
                rows.setdefault(name, {})[str(number)] = _short(value)
    columns = {str(number): Column(f"attempt {number + 1}", missing="") for number in range(len(attempts))}
    return ResultTable("", columns, rows)


def _short(value: Any) -> str:
    """Return a value of a manifest as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_short(entry)}" for name, entry in value.items() if entry not in NOTHING)
    if isinstance(value, list):
        words = all(isinstance(entry, str) for entry in value)
        return (" " if words else "; ").join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
