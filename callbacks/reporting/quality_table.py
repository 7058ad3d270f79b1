"""The outcome of a quality evaluation as a table: on the terminal, as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.reporting.table_files import write_table


@dataclass(frozen=True)
class QualityTable:
    """What `GenerationQuality` found.

    Attributes:
        stage: ``validate`` or ``test``.
        checkpoint: path of the evaluated weights, if they were loaded.
        samples: number of generated samples.
        features: the extractor, by name.
        reference: what the samples were compared with.
        reference_samples: number of the reference's images, where it is known.
        settings: how the samples were drawn.
        scores: ``fid``, ... -> value.
    """

    stage: str
    checkpoint: str | None
    samples: int
    features: str
    reference: str
    reference_samples: int | None
    settings: dict[str, Any]
    scores: dict[str, float]

    def show(self) -> None:
        """Print to the terminal."""
        table = Table("score", self.stage)
        for name, value in self.scores.items():
            table.add_row(name, f"{value:.5g}")
        print(self._title())
        Console().print(table)

    def markdown(self) -> str:
        """The same as Markdown."""
        lines = [f"# Generation quality ({self.stage})", ""]
        if self.checkpoint is not None:
            lines += [f"Checkpoint: `{self.checkpoint}`", ""]
        lines += [f"{self._title()}.", "", "| score | |", "|---|---|"]
        lines += [f"| {name} | {value:.5g} |" for name, value in self.scores.items()]
        lines += ["", "Drawn with " + ", ".join(f"{name} {value}" for name, value in self.settings.items()) + "."]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``quality_<stage>.json`` and ``.md``.

        Raises:
            OSError: a file could not be written.
        """
        return write_table(self, folder / f"quality_{self.stage}")

    def _title(self) -> str:
        number = "" if self.reference_samples is None else f" ({self.reference_samples} images)"
        return f"{self.samples} samples against {self.reference}{number} in {self.features}"
