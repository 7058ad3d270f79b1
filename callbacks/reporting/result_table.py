"""`ResultTable` and `Report`: results as tables, on the terminal and as files of Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from callbacks.reporting.json_text import json_text
from litscale.storage.files import write_atomically


@dataclass(frozen=True)
class Column:
    """A column of a table, with the way in which its values are written.

    Attributes:
        title: the heading.
        template: template of a number, for `str.format`.
        missing: the text for a missing number, or one that is not finite.
        right: whether values are aligned to the right.
    """

    title: str
    template: str = "{:.4g}"
    missing: str = "-"
    right: bool = False

    def text(self, value: float | str | None) -> str:
        """Return a value as text; a text is returned unchanged."""
        if isinstance(value, str):
            return value
        return self.template.format(value) if value is not None and math.isfinite(value) else self.missing


@dataclass(frozen=True)
class ResultTable:
    """Values in rows and columns.

    Attributes:
        label: the heading above the labels of the rows.
        columns: key -> column, in order; a column is shown if some row has its key.
        rows: label -> key -> value; keys without a column are written to CSV files only.
        title: a text on what the table shows.
        caption: the same for the terminal alone, for files that say it in another place.
    """

    label: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Mapping[str, float | str | None]]
    title: str = ""
    caption: str = ""

    @property
    def shown(self) -> dict[str, Column]:
        """Key -> column for the columns that are shown."""
        return {key: column for key, column in self.columns.items() if any(key in row for row in self.rows.values())}

    def lines(self) -> list[list[str]]:
        """Return the table as lines of text: headings, then a line for each row."""
        shown = self.shown
        head = [self.label, *(column.title for column in shown.values())]
        body = ([label, *(each.text(row.get(key)) for key, each in shown.items())] for label, row in self.rows.items())
        return [head, *body]

    def show(self) -> None:
        """Print the table to the terminal."""
        head, *body = self.lines()
        # labels and words are never broken, even if the table is then wider than the terminal
        labels, *others = zip(head, *body, strict=True)
        full = [max(map(len, texts)) for texts in (labels, *others)]
        widths = [full[0], *(max(map(len, " ".join(texts).split()), default=0) for texts in others)]
        borders = 3 * len(widths) - 1
        for _ in range(sum(widths) + borders, Console().width):
            column = max(range(len(widths)), key=lambda each: full[each] - widths[each])
            widths[column] += widths[column] < full[column]
        table = Table(pad_edge=False)
        rights = (False, *(column.right for column in self.shown.values()))
        for title, width, right in zip(head, widths, rights, strict=True):
            table.add_column(Text(title), justify="right" if right else "left", width=width)
        for line in body:
            table.add_row(*map(Text, line))
        if title := self.title or self.caption:
            print(title)
        console = Console(width=sum(widths) + borders)
        with console.capture() as text:
            console.print(table)
        print(text.get(), end="")  # a progress bar makes room for what is printed, but not for another console

    def markdown(self) -> str:
        """Return the table as Markdown, after its title as a sentence."""
        head, *body = ("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in self.lines())
        rule = "|---|" + "".join("---:|" if column.right else "---|" for column in self.shown.values())
        return "\n".join([*([f"{self.title}.", ""] if self.title else []), head, rule, *body])

    def csv(self) -> str:
        """Return all values of the rows as CSV; missing values are empty."""
        keys = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([self.label, *keys])
        writer.writerows([label, *(row.get(key, "") for key in keys)] for label, row in self.rows.items())
        return text.getvalue()


@dataclass(frozen=True)
class Report:
    """The outcome of an evaluation: tables, what they depend on, and the same as data.

    Attributes:
        name: name of its files, without ending.
        heading: heading of the Markdown file.
        tables: the tables, in order.
        data: content of the JSON file.
        checkpoint: path of the evaluated weights, if they were loaded.
        remark: a sentence below the tables.
    """

    name: str
    heading: str
    tables: list[ResultTable]
    data: dict[str, Any]
    _: KW_ONLY
    checkpoint: str | None = None
    remark: str = ""

    def show(self) -> None:
        """Print the tables to the terminal."""
        for table in self.tables:
            table.show()

    def markdown(self) -> str:
        """Return the whole report as Markdown."""
        checkpoint = "" if self.checkpoint is None else f"Checkpoint: `{self.checkpoint}`"
        parts = [f"# {self.heading}", checkpoint, *(table.markdown() for table in self.tables), self.remark]
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, folder: Path, with_csv: bool = False) -> list[Path]:
        """Write ``<name>.json`` and ``.md``, and on demand ``.csv`` with the values of the last table.

        Args:
            folder: the folder of the files, which is made.
            with_csv: whether to write the ``.csv``.

        Returns:
            The paths of the files.

        Raises:
            OSError: a file could not be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        contents = {"json": json_text(self.data), "md": self.markdown().encode()}
        if with_csv:
            contents["csv"] = self.tables[-1].csv().encode()
        return [write_atomically(folder / f"{self.name}.{ending}", content) for ending, content in contents.items()]
