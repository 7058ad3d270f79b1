"""Measurements of a benchmark that an interruption does not lose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from callbacks.reporting.json_text import json_text
from litscale.progress import progress
from litscale.storage.files import write_atomically

Numbers = dict[str, float]
"""Name -> measured value."""


def measured(cases: Mapping[str, Callable[[], Numbers]], unfinished: Path, settings: str) -> dict[str, Numbers]:
    """Measure cases one after the other, and write the measurements so far to a file after each of them.

    Args:
        cases: name of a measurement -> the function that measures it. Progress shows the name up to its first ``#``.
        unfinished: file of the measurements so far; those of the same settings are not repeated.
        settings: all that the numbers depend on.

    Returns:
        The numbers of each case, in order.

    Raises:
        OSError: the file could not be written.
    """
    key = hashlib.sha256(settings.encode()).hexdigest()
    kept = json.loads(unfinished.read_text()) if unfinished.is_file() else {}
    rows = kept["rows"] if kept.get("key") == key else {}
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    for name in progress(cases, "Measurements", len(cases), name_of=lambda name: name.partition("#")[0].strip()):
        if name not in rows:
            rows[name] = cases[name]()
            write_atomically(unfinished, json_text({"key": key, "rows": rows}))
    return {name: rows[name] for name in cases}
