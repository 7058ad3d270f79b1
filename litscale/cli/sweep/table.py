"""The trials of a sweep as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from optuna.trial import FrozenTrial, TrialState

from callbacks.reporting.figures import write_picture
from callbacks.reporting.result_table import Column, ResultTable
from litscale.cli.sweep.spec import SweepSpec
from litscale.storage.files import write_atomically
from litscale.storage.sweep_record import PRUNED

ERROR = "error"  # attribute of a trial that failed
WORDS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
COLUMNS = 3  # of the picture
BLUE, ORANGE, GREY = "#3b6fb6", "#d9822b", "#9aa1ab"


def score_of(spec: SweepSpec, trial: FrozenTrial) -> float | None:
    """Return the best score of a trial's validations; None if it has none."""
    choose = min if spec.mode == "min" else max
    return choose(trial.intermediate_values.values(), default=None)


def best_of(spec: SweepSpec, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the best trial that was trained to its end, the first of equal ones; None if there is none."""
    return next((trial for trial in ranked(spec, trials) if trial.state == TrialState.COMPLETE), None)


def ranked(spec: SweepSpec, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials by score, then those that failed or have no score; equal ones are sorted by number."""

    def place(trial: FrozenTrial) -> tuple[bool, float, int]:
        score = score_of(spec, trial)
        last = score is None or trial.state == TrialState.FAIL
        return last, 0.0 if score is None else score if spec.mode == "min" else -score, trial.number

    return sorted(trials, key=place)


def as_table(spec: SweepSpec, trials: Sequence[FrozenTrial]) -> ResultTable:
    """Return a table of the trials, the best first, which does not depend on when the sweep was interrupted."""
    short = short_names(spec)
    rows: dict[str, dict[str, Any]] = {}
    for trial in ranked(spec, trials):
        row: dict[str, Any] = {spec.metric: score_of(spec, trial)} if trial.intermediate_values else {}
        row |= {name: _cell(spec.value(name, value)) for name, value in trial.params.items()}
        row["state"] = WORDS.get(trial.state, "unfinished")
        if PRUNED in trial.user_attrs:
            row["state"] += f" at step {trial.user_attrs[PRUNED]}"
        if ERROR in trial.user_attrs:
            row[ERROR] = trial.user_attrs[ERROR]
        rows[f"{trial.number:04d}"] = row
    columns = {spec.metric: Column(spec.metric, "{:.5g}", right=True)}
    columns |= {name: Column(short[name], "{:.6g}", right=True) for name in spec.space}
    best = best_of(spec, trials)
    title = "" if best is None else f"The best: trial {best.number:04d} with {spec.metric} {score_of(spec, best):.5g}"
    return ResultTable("trial", columns | {"state": Column("state"), ERROR: Column("error", missing="")}, rows, title)


def picture(spec: SweepSpec, trials: Sequence[FrozenTrial]) -> Figure:
    """Draw the score over each parameter that varies, with the best trial marked; listed values are evenly spaced."""
    names = [name for name in spec.space if not spec.distributions[name].single()] or list(spec.space)
    short = short_names(spec)
    lines, width = -(-len(names) // COLUMNS), min(len(names), COLUMNS)
    figure = Figure(figsize=(4 * width + 0.5, 3 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, width, squeeze=False, sharey=True).flat
    scored = [trial for trial in trials if trial.intermediate_values and trial.state != TrialState.FAIL]
    best = best_of(spec, trials)
    for name, panel in zip(names, panels, strict=False):
        # 1. numbers where they are, all else in the order of the file
        distribution = spec.distributions[name]
        places = {value: i for i, value in enumerate(getattr(distribution, "choices", ()))}
        if places:
            panel.set_xticks(range(len(places)), [_label(spec.value(name, value)) for value in places])
            panel.set_xlim(-0.5, len(places) - 0.5)
        elif getattr(distribution, "log", False):
            panel.set_xscale("log")
            panel.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # labels of all nine would overlap
        # 2. a point for each trial
        for state, color in ((TrialState.PRUNED, GREY), (TrialState.RUNNING, GREY), (TrialState.COMPLETE, BLUE)):
            drawn = [trial for trial in scored if trial.state == state]
            x = [places.get(trial.params[name], trial.params[name]) for trial in drawn]
            panel.plot(x, [score_of(spec, trial) for trial in drawn], "o", color=color, markersize=4, alpha=0.8)
        if best is not None:
            x = places.get(best.params[name], best.params[name])
            panel.plot(x, score_of(spec, best), "o", color=ORANGE, markersize=7, label=f"best: {best.number:04d}")
            panel.legend(frameon=False, fontsize=7)
        panel.set_xlabel(short[name], fontsize=9)
        panel.tick_params(which="both", labelsize=7)
        panel.grid(color="#e3e5e8", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in figure.axes[len(names) :]:
        panel.set_visible(False)
    figure.supylabel(spec.metric, fontsize=9)
    return figure


def write_tables(spec: SweepSpec, trials: Sequence[FrozenTrial]) -> ResultTable:
    """Write ``sweep.csv``, ``sweep.md`` and ``sweep.png``, and return the table.

    Raises:
        OSError: a file could not be written.
    """
    table = as_table(spec, trials)
    write_atomically(spec.root / "sweep.csv", table.csv().encode())
    write_atomically(spec.root / "sweep.md", f"# {spec.path.stem}\n\n{table.markdown()}\n".encode())
    write_picture(picture(spec, trials), spec.root / "sweep.png")
    return table


def short_names(spec: SweepSpec) -> dict[str, str]:
    """Return option -> the shortest end of its path that tells it from the others."""
    paths = {name: name.replace(".init_args", "").split(".") for name in spec.space}
    short = {}
    for name, parts in paths.items():
        others = [other for key, other in paths.items() if key != name]
        length = next(n for n in range(1, len(parts) + 1) if all(o[-n:] != parts[-n:] for o in others))
        short[name] = ".".join(parts[-length:])
    return short


def _cell(value: Any) -> float | str:
    """Return a value for the table: a number, or text."""
    return float(value) if type(value) in (int, float) else str(value)


def _label(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:14]}.."
