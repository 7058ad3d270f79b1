"""Tables as files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from callbacks.reporting.json_text import json_text
from litscale.storage.files import write_atomically


def write_table(table: Any, stem: Path, **more: bytes) -> list[Path]:
    """Write ``<stem>.json`` and ``.md``.

    Args:
        table: a dataclass with a method ``markdown``.
        stem: path without an ending; its folder is made.
        more: contents of further files, by their ending.

    Raises:
        OSError: a file could not be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = {"json": json_text(asdict(table)), "md": table.markdown().encode()} | more
    return [write_atomically(f"{stem}.{ending}", data) for ending, data in files.items()]
