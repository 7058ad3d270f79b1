"""MIDI files in a folder: which there are, and which class each belongs to.

A file is known by its path relative to the folder, with forward slashes, on every system.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

SUFFIXES = (".mid", ".midi")


def some(items: Sequence[str], most: int = 5) -> str:
    """The first few items, for a message."""
    return "; ".join(items[:most]) + (f"; and {len(items) - most} more" if len(items) > most else "")


def midi_files(folder: str | Path) -> list[str]:
    """The MIDI files in a folder and the folders in it.

    Args:
        folder: where to look; suffixes ``.mid`` and ``.midi``, in any case.

    Returns:
        Relative paths, sorted.

    Raises:
        FileNotFoundError: no such folder, or no MIDI file in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}; give one that holds MIDI files")
    found = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = sorted(path.relative_to(root).as_posix() for path in found)
    if not names:
        raise FileNotFoundError(
            f"folder: no .mid or .midi file in {folder} or the folders in it; give one that holds MIDI files"
        )
    return names


def content_hashes(folder: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> hash of the file's bytes; ``unreadable`` for a file that cannot be opened."""
    root = Path(folder).expanduser()
    hashes = {}
    for name in names:
        try:
            hashes[name] = sha256((root / name).read_bytes()).hexdigest()
        except OSError:
            hashes[name] = "unreadable"
    return hashes


def classes_of(names: Sequence[str]) -> list[str]:
    """The first-level folders of the files, sorted: class k is entry k.

    Raises:
        ValueError: a file lies in no such folder.
    """
    loose = [name for name in names if "/" not in name]
    if loose:
        raise ValueError(
            f"labels: {len(loose)} files lie directly in the folder and have no class: {some(loose)}; move them into "
            "sub-folders named after their classes, or set labels to false"
        )
    return sorted({class_of(name) for name in names})


def class_of(name: str) -> str:
    """The first-level folder of a file."""
    return name.split("/")[0]
