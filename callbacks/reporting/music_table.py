"""The outcome of a music evaluation as a table: on the terminal, as Markdown and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from callbacks.reporting.table_files import write_table

COLUMNS = ("generated", "data", "ratio", "overlap")


@dataclass(frozen=True)
class MusicTable:
    """What `MusicEvaluation` found.

    Attributes:
        stage: ``validate`` or ``test``.
        checkpoint: path of the evaluated weights, if they were loaded.
        samples: number of generated samples.
        windows: number of windows of the data.
        nats_per_step: ``model`` and the baselines -> nats; lower is better.
        statistics: name -> ``generated``, ``data``, ``ratio``, ``overlap``.
    """

    stage: str
    checkpoint: str | None
    samples: int
    windows: int
    nats_per_step: dict[str, float]
    statistics: dict[str, dict[str, float]]

    def show(self) -> None:
        """Print to the terminal."""
        console = Console()
        if self.nats_per_step:
            table = Table("nats per step", self.stage, title="Likelihood (lower is better)")
            for name, value in self.nats_per_step.items():
                table.add_row(name.replace("_", " "), _text(value))
            console.print(table)
        table = Table("statistic", *COLUMNS, title=f"{self.samples} samples beside {self.windows} windows of the data")
        for name, row in self.statistics.items():
            table.add_row(name, *(_text(row[column]) for column in COLUMNS))
        console.print(table)

    def markdown(self) -> str:
        """The same as Markdown."""
        lines = [f"# Music evaluation ({self.stage})", ""]
        if self.checkpoint is not None:
            lines += [f"Checkpoint: `{self.checkpoint}`", ""]
        if self.nats_per_step:
            lines += ["| nats per step (lower is better) | |", "|---|---|"]
            lines += [f"| {name.replace('_', ' ')} | {_text(value)} |" for name, value in self.nats_per_step.items()]
            lines += [""]
        lines += [f"{self.samples} generated samples beside {self.windows} windows of the data.", ""]
        lines += ["| statistic | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for name, row in self.statistics.items():
            lines += [f"| {name} | " + " | ".join(_text(row[column]) for column in COLUMNS) + " |"]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``music_<stage>.json`` and ``.md``.

        Raises:
            OSError: a file could not be written.
        """
        return write_table(self, folder / f"music_{self.stage}")


def _text(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"
