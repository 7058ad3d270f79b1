"""``litscale compare``: the scores of several runs as one table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

STAGES = ("test", "validate")


def scores(folder: Path) -> dict[str, float]:
    """What the last ``litscale test`` of a run found, or the last ``litscale validate`` where there was no test.

    Raises:
        FileNotFoundError: the run was neither tested nor validated.
        ValueError: the file of scores is damaged.
    """
    for stage in STAGES:
        path = folder / f"scores_{stage}.json"
        if path.is_file():
            try:
                found: dict[str, float] = json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} is damaged ({error}): run litscale {stage} again") from error
            return found
    raise FileNotFoundError(f"{folder} holds no scores of a test or validation: run litscale test with it first")


def table(runs: Sequence[str]) -> Table:
    """Scores as rows, runs as columns; raises as `scores` does."""
    found = {run: scores(Path(run)) for run in runs}
    result = Table("score", *(Path(run).name for run in runs), title="Scores")
    for name in dict.fromkeys(name for row in found.values() for name in row):
        result.add_row(name, *(f"{row[name]:.4g}" if name in row else "" for row in found.values()))
    return result


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
