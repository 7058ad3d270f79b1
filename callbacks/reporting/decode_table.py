"""What decoders took and what they made, as a table: on the terminal, as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.reporting.table_files import write_table

TITLES = {
    "target_calls_per_image": "target calls",
    "draft_calls_per_image": "draft calls",
    "accepted_scales_per_call": "accepted per call",
    "ms_per_image": "ms per image",
    "speedup": "speed-up",
    "token_agreement": "token agreement",
    "pixel_difference": "pixel difference",
    "fid": "FID",
    "fid_difference": "FID difference",
    "fid_deviation": "+-",
    "fid_change": "FID change",
}
"""Columns and their headings; one that no decoder has a number for is left out."""


@dataclass(frozen=True)
class DecodeTable:
    """Decoders beside each other.

    Attributes:
        name: of the files.
        facts: what holds for all rows, in words.
        settings: what the numbers depend on.
        rows: for each decoder in words its numbers; those of :data:`TITLES` are shown.
    """

    name: str
    facts: str
    settings: dict[str, Any]
    rows: dict[str, dict[str, float]]

    @property
    def columns(self) -> list[str]:
        """Names of the numbers that are shown."""
        return [name for name in TITLES if any(name in row for row in self.rows.values())]

    def lines(self) -> list[list[str]]:
        """The table's text: headings, then a line for each decoder."""
        head = ["decoder", *(TITLES[name] for name in self.columns)]
        body = ([label, *(_text(name, row.get(name)) for name in self.columns)] for label, row in self.rows.items())
        return [head, *body]

    def show(self) -> None:
        """Print to the terminal."""
        head, *body = self.lines()
        table = Table(title=self.facts)
        table.add_column(head[0], no_wrap=True)
        for title in head[1:]:
            table.add_column(title, justify="right")
        for line in body:
            table.add_row(*line)
        Console(width=max(Console().width, 48 + 12 * len(head))).print(table)

    def markdown(self) -> str:
        """The same as Markdown."""
        head, *body = (f"| {' | '.join(line)} |" for line in self.lines())
        rule = "|---" + "|---:" * len(self.columns) + "|"
        drawn = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return "\n".join(["# Decoders", "", f"{self.facts}.", "", head, rule, *body, "", f"With {drawn}."]) + "\n"

    def write(self, folder: Path, with_csv: bool = False) -> list[Path]:
        """Write ``<name>.json`` and ``.md``, and on demand ``.csv`` with all numbers.

        Raises:
            OSError: a file could not be written.
        """
        more = {"csv": self._csv()} if with_csv else {}
        return write_table(self, folder / self.name, **more)

    def _csv(self) -> bytes:
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["decoder", *names])
        writer.writerows([label, *(row.get(name, "") for name in names)] for label, row in self.rows.items())
        return text.getvalue().encode()


def _text(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if name in ("token_agreement", "fid_change"):
        return f"{value:.1%}" if name == "token_agreement" else f"{value:+.1%}"
    return f"{value:.2f}x" if name == "speedup" else f"{value:.4g}"
