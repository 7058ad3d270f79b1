"""``litscale compare``: the scores of several runs as one table, which reports show, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from callbacks.reporting.result_table import Column, ResultTable
from litscale.cli.errors import CommandParser
from litscale.cli.scores import Scores, newest_scores
from litscale.storage.exported import CONFIG
from litscale.storage.run_folders import EVALUATIONS


def newest(folder: Path) -> tuple[Scores, str]:
    """Return the scores of a run's last ``litscale test``, or of its last ``litscale validate`` if it had no test.

    Returns:
        The scores, and ``test`` or ``validate``.

    Raises:
        FileNotFoundError: there is no such folder, it is that of several runs, or the run was neither tested nor
            validated.
        ValueError: a file of scores is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the folder of a run")
    for stage in ("test", "validate"):
        if scores := newest_scores(folder, stage):
            return scores, stage
    if not (folder / CONFIG).is_file() and (runs := sorted(each.parent for each in folder.glob(f"*/{CONFIG}"))):
        raise FileNotFoundError(f"{folder} is no run, but holds runs: give them, such as {runs[0]}")
    tables = sorted(map(str, folder.glob(f"{EVALUATIONS}/*/scores.md")))
    apart = f"; those of its evaluations stand in {', '.join(tables)}" if tables else ""
    raise FileNotFoundError(f"{folder} holds no scores of a test or validation: run litscale test with it first{apart}")


def score_table(runs: Mapping[str, tuple[Scores, str]]) -> ResultTable:
    """Return a table with scores as rows, below the weights to which they belong, and runs as columns.

    A column is headed by the name of the run's folder, or by the whole path if several folders have that name.

    Some names, such as those of music statistics, do not tell the test data from the validation data. They are followed
    by the stage, so that scores of different data do not share a row.

    Args:
        runs: run -> its scores and their stage.
    """
    names = {run: Path(run).resolve().name for run in runs}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    columns = {run: Column(run if name in shared else name, missing="") for run, name in names.items()}
    rows: dict[str, dict[str, float | str | None]] = {}
    for run, (scores, stage) in runs.items():
        rows.setdefault("weights", {})[run] = scores.source
        for name, value in scores.scores.items():
            label = name if name.startswith(("val/", "test/")) else f"{name} ({stage})"
            rows.setdefault(label, {})[run] = "not finite" if value is None else value
    return ResultTable("score", columns, rows, "Scores")


def main(args: Sequence[str]) -> None:
    """Print the table of scores.

    Args:
        args: the words after ``litscale compare``.
    """
    parser = CommandParser("litscale compare", "Show the scores of several runs as one table.")
    parser.add_argument("runs", nargs="+", help="run folders (trainer.default_root_dir)")
    given = parser.parse_args(args)
    try:
        score_table({run: newest(Path(run)) for run in given.runs}).show()
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
