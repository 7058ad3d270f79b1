"""Rolls on disk: read once, then memory-mapped by every rank and worker.

A cache is a folder that never changes once it is there:

    rolls.u8     uint8 [total_steps, 128], all pieces one after the other; time runs first, so that a window is one
                 contiguous read
    notes.npy    int32 [pieces, 128], notes that start on each pitch
    index.json   names, first steps and lengths of the pieces, and the files that could not be read, with the reason

It is built in a temporary folder and renamed when complete. Of two processes that build the same cache at once, the
second throws its own away; nobody waits for a lock, which network file systems do not reliably have.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np
from tqdm import tqdm

import music
from music.roll import PITCHES, Roll

PIECES, NOTES, INDEX = "rolls.u8", "notes.npy", "index.json"
CHUNK = 16  # pieces that go to a worker process at a time


def default_cache_dir() -> Path:
    """``$LITSCALE_CACHE``, else ``$XDG_CACHE_HOME/litscale``, else ``~/.cache/litscale``."""
    if given := os.environ.get("LITSCALE_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "litscale"


def cache_path(cache_dir: Path, content: dict[str, str], options: dict[str, object]) -> Path:
    """Where the cache of this content is, or will be.

    Args:
        cache_dir: the folder of all caches.
        content: piece name -> hash or version of what the piece is read from.
        options: all that the symbols depend on; JSON values.

    Returns:
        A folder whose name changes with the content, the options and the code that reads music.
    """
    described = {"content": content, "options": options, "code": _code_hash()}
    return cache_dir / f"rolls-{sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]}"


@dataclass
class RollCache:
    """An open cache, read-only. Cheap to send to worker processes: they map the file anew.

    Attributes:
        path: its folder.
        names: the pieces.
        starts: first step of each piece, int64 ``[pieces]``.
        steps: length of each piece in steps, int64 ``[pieces]``.
        notes: notes that start on each pitch, int32 ``[pieces, 128]``.
        errors: file -> why it could not be read.
    """

    path: Path
    names: list[str]
    starts: np.ndarray
    steps: np.ndarray
    notes: np.ndarray
    errors: dict[str, str]
    _symbols: np.memmap | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path) -> RollCache | None:
        """Open a cache.

        Args:
            path: its folder, from `cache_path`.

        Returns:
            The cache, or None if it is missing or damaged.
        """
        try:
            index = json.loads((path / INDEX).read_text(encoding="utf-8"))
            steps = np.array(index["steps"], dtype=np.int64)
            notes = np.load(path / NOTES)
            size = (path / PIECES).stat().st_size
        except (OSError, ValueError, KeyError, EOFError):
            return None
        if size != int(steps.sum()) * PITCHES or notes.shape != (len(steps), PITCHES):
            return None
        return cls(path, index["names"], np.cumsum(steps) - steps, steps, notes, index["errors"])

    def window(self, piece: int, start: int, length: int) -> np.ndarray:
        """Some steps of a piece.

        Args:
            piece: its index in ``names``.
            start: first step, within the piece.
            length: number of steps; the piece must have them.

        Returns:
            Symbols, uint8 ``[128, length]``, a read-only view of the file.
        """
        if self._symbols is None:
            shape = (int(self.steps.sum()), PITCHES)
            self._symbols = np.memmap(self.path / PIECES, dtype=np.uint8, mode="r", shape=shape)
        first = int(self.starts[piece]) + start
        return self._symbols[first : first + length].T

    def __getstate__(self) -> dict[str, object]:
        # A pickled memmap would carry all its bytes.
        return {**self.__dict__, "_symbols": None}


def build_cache(
    path: Path, names: Sequence[str], read: Callable[[str], Roll], what: str, processes: int
) -> RollCache:
    """Read all pieces and put their rolls on disk, unless the cache is already there.

    Args:
        path: the cache's folder, from `cache_path`.
        names: the pieces, in the order of the cache.
        read: name -> roll over 128 pitches; a ``ValueError`` or ``OSError`` sets the piece aside. Must be picklable.
        what: what is read, for the progress bar.
        processes: how many read at once; 1 reads in this process.

    Returns:
        The open cache.

    Raises:
        ValueError: not one piece could be read; the message lists the reasons.
        OSError: the cache could not be written; nothing is left behind.
    """
    if (ready := RollCache.open(path)) is not None:
        return ready
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        with _explained(path.parent):
            temporary.mkdir(parents=True)
        with _results(names, partial(_read, read), processes) as results:
            _write(temporary, zip(names, tqdm(results, desc=f"Reading {what}", total=len(names)), strict=True))
        with _explained(path.parent):
            return _publish(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(read: Callable[[str], Roll], name: str) -> np.ndarray | str:
    """The symbols of a piece, uint8 ``[step, 128]``, or why there are none."""
    try:
        roll = read(name)
    except (ValueError, OSError) as error:
        return str(error)
    return np.ascontiguousarray(roll.symbols.T) if roll.steps else "no steps"


