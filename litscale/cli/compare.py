"""``litscale compare``: the scores of several runs as one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from litscale.cli.scores import Scores, newest_scores

STAGES = ("test", "validate")


def scores(folder: Path) -> Scores:
    """What the last ``litscale test`` of a run found, or the last ``litscale validate`` where there was no test.

    Raises:
        FileNotFoundError: the run was neither tested nor validated.
        ValueError: a file of scores is damaged.
    """
    found = newest_scores(folder, STAGES)
    if found is None:
        raise FileNotFoundError(f"{folder} holds no scores of a test or validation: run litscale test with it first")
    return found


def table(runs: Sequence[str]) -> Table:
    """Scores as rows below the weights that they are of, runs as columns; raises as `scores` does."""
    found = {run: scores(Path(run)) for run in runs}
    result = Table("score", *(Path(run).name for run in runs), title="Scores")
    result.add_row("weights", *(row.source for row in found.values()))
    for name in dict.fromkeys(name for row in found.values() for name in row.scores):
        result.add_row(name, *(_cell(row, name) for row in found.values()))
    return result


def _cell(row: Scores, name: str) -> str:
    """A score as text, empty if the run has none of that name."""
    if name not in row.scores:
        return ""
    value = row.scores[name]
    return "not finite" if value is None else f"{value:.4g}"


def main(args: Sequence[str]) -> None:
    """Print the table.

    Args:
        args: words after ``litscale compare``.
    """
    parser = argparse.ArgumentParser("litscale compare", description="The scores of several runs as one table.")
    parser.add_argument("runs", nargs="+", help="run folders (trainer.default_root_dir)")
    given = parser.parse_args(args)
    try:
        Console().print(table(given.runs))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
