"""``litscale compare``: the scores of several runs as one table, which reports show, too."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from callbacks.reporting.result_table import Column, ResultTable
from litscale.cli.scores import Scores, newest_scores


def newest(folder: Path) -> tuple[Scores, str]:
    """What the last ``litscale test`` of a run found, or the last ``litscale validate`` where there was no test.

    Returns:
        The scores, and ``test`` or ``validate``.

    Raises:
        FileNotFoundError: there is no such folder, or the run was neither tested nor validated.
        ValueError: a file of scores is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the folder of a run")
    for stage in ("test", "validate"):
        if scores := newest_scores(folder, stage):
            return scores, stage
    raise FileNotFoundError(f"{folder} holds no scores of a test or validation: run litscale test with it first")


def score_table(runs: Mapping[str, tuple[Scores, str]]) -> ResultTable:
    """Scores as rows below the weights that they are of, runs as columns.

    Names that do not say of which data they are, such as those of music statistics, are followed by the stage, so that
    scores of the test data and of the validation data do not share a row.

    Args:
        runs: run -> its scores and their stage.
    """
    columns = {run: Column(Path(run).name, missing="") for run in runs}
    rows: dict[str, dict[str, float | str | None]] = {}
    for run, (scores, stage) in runs.items():
        rows.setdefault("weights", {})[run] = scores.source
        for name, value in scores.scores.items():
            label = name if name.startswith(("val/", "test/")) else f"{name} ({stage})"
            rows.setdefault(label, {})[run] = "not finite" if value is None else value
    return ResultTable("score", columns, rows, "Scores")


def main(args: Sequence[str]) -> None:
    """Print the table.

    Args:
        args: words after ``litscale compare``.
    """
    parser = argparse.ArgumentParser("litscale compare", description="The scores of several runs as one table.")
    parser.add_argument("runs", nargs="+", help="run folders (trainer.default_root_dir)")
    given = parser.parse_args(args)
    try:
        score_table({run: newest(Path(run)) for run in given.runs}).show()
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
