"""MIDI files in a folder: which there are, and which class each belongs to.

A file is known by its path relative to the folder, with forward slashes, on every system.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

SUFFIXES = (".mid", ".midi")


def some(items: Sequence[str], most: int = 5) -> str:
    """The first few items, for a message."""
    return "; ".join(items[:most]) + (f"; and {len(items) - most} more" if len(items) > most else "")


def midi_files(folder: str | Path) -> list[str]:
    """The MIDI files in a folder and the folders in it, also those that symbolic links lead to.

    A folder that can be reached by several ways is read once, without links if it can be: its pieces would be in
    several splits otherwise, and links may lead in circles. A link to a file that is not there is listed.

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
    names = sorted(path.relative_to(root).as_posix() for path in _files(root) if path.suffix.lower() in SUFFIXES)
    if not names:
        raise FileNotFoundError(
            f"folder: no .mid or .midi file in {folder} or the folders in it; give one that holds MIDI files"
        )
    return names


def _files(root: Path) -> Iterator[Path]:
    """Files, and links to nothing, in a folder and those below it; see `midi_files`."""
    seen: set[str] = set()
    waiting = deque([root])
    while waiting:
        for folder, subfolders, names in os.walk(waiting.popleft()):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders.sort()
            waiting.extend(Path(folder, name) for name in subfolders if Path(folder, name).is_symlink())
            yield from (path for name in names if (path := Path(folder, name)).is_file() or not path.exists())


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
