"""Rolls on disk: read once, then memory-mapped by every rank and worker.

A cache is a folder that never changes once it is there:

    rolls.u8     uint8 [total_steps, 128], all pieces one after the other; time runs first, so that a window is one
                 contiguous read
    notes.npy    int32 [pieces, 128], notes that start on each pitch
    index.json   names, lengths and meters of the pieces, and the files that could not be read, with the reason

It is built in a temporary folder and renamed when complete. Of two processes that build the same cache at once, the
second throws its own away; nobody waits for a lock, which network file systems do not reliably have.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import numpy as np
from tqdm import tqdm

import music
from datamodules.folders import some
from music.roll import PITCHES, Roll

PIECES, NOTES, INDEX = "rolls.u8", "notes.npy", "index.json"
CHUNK = 16  # pieces that go to a reading process at a time
AT_ONCE = 1024  # pieces that may wait to be written
MOST_PROCESSES = 8

_T = TypeVar("_T")


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
        beats_per_bar: meter of each piece in quarter notes, float64 ``[pieces]``.
    """

    path: Path
    names: list[str]
    starts: np.ndarray
    steps: np.ndarray
    notes: np.ndarray
    errors: dict[str, str]
    beats_per_bar: np.ndarray = field(default_factory=lambda: np.empty(0))
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
            meters = np.array(index["beats_per_bar"], dtype=np.float64)
            notes = np.load(path / NOTES)
            size = (path / PIECES).stat().st_size
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        if size != int(steps.sum()) * PITCHES or notes.shape != (len(steps), PITCHES):
            return None
        return cls(path, index["names"], np.cumsum(steps) - steps, steps, notes, index["errors"], meters)

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


def build_cache(path: Path, names: Sequence[str], read: Callable[[str], Roll], what: str) -> RollCache:
    """Read all pieces, in several processes, and put their rolls on disk.

    Args:
        path: the cache's folder, from `cache_path`.
        names: the pieces, in the order that the cache shall have.
        read: name -> roll over 128 pitches; a ``ValueError`` or ``OSError`` sets the piece aside. It is pickled.
        what: what is read, for the progress bar.

    Returns:
        The open cache.

    Raises:
        ValueError: not one piece could be read; the message gives the reasons.
        OSError: the cache could not be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        with _naming_the_option(path.parent):
            temporary.mkdir(parents=True)
        read_all = tqdm(_read_all(names, partial(_read, read)), desc=f"Reading {what}", total=len(names))
        _write(temporary, zip(names, read_all, strict=True))
        with _naming_the_option(path.parent):
            return _publish(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(read: Callable[[str], Roll], name: str) -> tuple[np.ndarray, np.ndarray, float] | str:
    """A piece's symbols, uint8 ``[step, 128]``, notes on each pitch, and quarter notes per bar; or why it has none."""
    try:
        roll = read(name)
    except (ValueError, OSError) as error:
        return str(error)
    if not roll.steps:
        return f"{name}: no steps"
    counts = np.bincount(music.notes(roll)["pitch"], minlength=PITCHES)
    return np.ascontiguousarray(roll.symbols.T), counts, roll.format.beats_per_bar


def _read_all(names: Sequence[str], read: Callable[[str], _T]) -> Iterator[_T]:
    """``read`` of each name, in order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, MOST_PROCESSES, len(names) // CHUNK)
    if processes < 2:
        yield from map(read, names)
        return
    # Without `freeze`, each collection of garbage in a process would walk, and so copy, the memory that it inherited.
    with ProcessPoolExecutor(processes, initializer=gc.freeze) as pool:
        # A bounded number at a time: `map` would keep every result that nobody has taken yet.
        for first in range(0, len(names), AT_ONCE):
            yield from pool.map(read, names[first : first + AT_ONCE], chunksize=CHUNK)


def _write(folder: Path, results: Iterable[tuple[str, tuple[np.ndarray, np.ndarray, float] | str]]) -> None:
    """The three files of a cache."""
    names, steps, notes, meters, errors = [], [], [], [], {}
    with _naming_the_option(folder.parent), (folder / PIECES).open("wb") as file:
        for name, result in results:
            if isinstance(result, str):
                errors[name] = result
                continue
            file.write(result[0].tobytes())
            names.append(name)
            steps.append(len(result[0]))
            notes.append(result[1])
            meters.append(result[2])
        # Some file systems report a full disk only here.
        file.flush()
        os.fsync(file.fileno())
    if not names:
        raise ValueError(f"none of {len(errors)} files could be read: {some(list(errors.values()))}")
    with _naming_the_option(folder.parent):
        np.save(folder / NOTES, np.array(notes, dtype=np.int32))
        index = {"names": names, "steps": steps, "beats_per_bar": meters, "errors": errors}
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _publish(temporary: Path, path: Path) -> RollCache:
    """Give a complete cache its name, unless another process was first; a damaged one makes room."""
    while (cache := RollCache.open(path)) is None:
        try:
            temporary.rename(path)
        except OSError:
            if not path.exists():
                raise
            aside = path.with_name(f".{path.name}-{uuid4().hex}")
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    return cache


@contextmanager
def _naming_the_option(cache_dir: Path) -> Iterator[None]:
    """Errors in writing say which option to change."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not write the cache of rolls ({error.strerror}); make room there, or set the option cache_dir (or "
            "the environment variable LITSCALE_CACHE) to another folder",
            str(cache_dir),
        ) from error


def _code_hash() -> str:
    """Changes with the code and the packages that make symbols, so that no cache outlives a corrected reader."""
    files = [Path(__file__), Path(__file__).with_name("bach.py")]
    readers = ("meter.py", "midi.py", "midi_events.py", "notes.py", "pairing.py", "phase.py", "roll.py")
    files += [Path(music.__file__).with_name(name) for name in readers]
    versions = [f"music21 {version('music21')}"]
    return sha256(b"".join(file.read_bytes() for file in files) + " ".join(versions).encode()).hexdigest()
