"""Rolls on disk: read once, then memory-mapped by every rank and worker.

A cache is a folder that never changes once it is there:

    rolls.u8     uint8 [total_steps, 128], all pieces one after the other; time runs first, so that a window is one
                 contiguous read
    notes.npy    int32 [pieces, 128], notes that start on each pitch
    index.json   names, lengths and meters of the pieces, and the files that could not be read, with the reason

It is built in a temporary folder and renamed when complete. Of two processes that build the same cache at once, the
second throws its own away; nobody waits for a lock, which network file systems do not reliably have. What a killed
process was building is removed by the next one that prepares data (see `litscale.storage.temporaries`).

Pieces are read by several processes. What they send and what is not written yet is bounded in bytes, and they end when
the process ends that started them, however it ends.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np

from datamodules.messages import abridged
from litscale import music
from litscale.music.roll import PITCHES, Roll
from litscale.progress import progress
from litscale.storage.caches import writing_cache
from litscale.storage.files import DamagedError, named_errors, read_json
from litscale.storage.npz import read_npy
from litscale.storage.temporaries import temporary_folder

CONTENT = "rolls"  # for messages
PIECES, NOTES, INDEX = "rolls.u8", "notes.npy", "index.json"
CHUNK = 16  # pieces that go to a reading process at a time
CHUNK_BYTES = 2**24  # of rolls, after which it sends what it has
CHUNKS_WAITING = 2  # for each process, read or being read, not yet written
MOST_PROCESSES = 8
WATCH = 0.5  # seconds between looks at whether the parent is there


def cache_path(cache_dir: Path, options: Mapping[str, object]) -> Path:
    """Return the path that a cache has, or will have.

    Args:
        cache_dir: the folder of all caches.
        options: all that the symbols depend on; JSON values.

    Returns:
        A folder whose name changes with the options and the code that reads music.
    """
    described = {"options": options, "code": _code_hash()}
    return cache_dir / f"rolls-{sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]}"


@dataclass(kw_only=True)
class RollCache:
    """An open cache, read-only. Cheap to send to worker processes: each of them maps the file itself.

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
            with named_errors(path, "damaged"):
                index = read_json(path / INDEX)
                names, errors = list(index["names"]), dict(index["errors"])
                steps = np.array(index["steps"], dtype=np.int64)
                meters = np.array(index["beats_per_bar"], dtype=np.float64)
                notes = read_npy(path / NOTES)
                size = (path / PIECES).stat().st_size
                whole = size == int(steps.sum()) * PITCHES and notes.shape == (len(steps), PITCHES)
        except (DamagedError, FileNotFoundError):
            return None
        if not whole or len(names) != len(steps) or len(meters) != len(steps) or steps.min(initial=1) < 1:
            return None
        return cls(
            path=path,
            names=names,
            starts=np.cumsum(steps) - steps,
            steps=steps,
            notes=notes,
            errors=errors,
            beats_per_bar=meters,
        )

    def window(self, piece: int, start: int, length: int) -> np.ndarray:
        """Return some steps of a piece.

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
    with ExitStack() as stack:
        with writing_cache(path.parent, CONTENT):
            temporary = stack.enter_context(temporary_folder(path.parent))
        read_all = progress(_read_all(names, partial(_read, read)), f"Reading {what}", len(names))
        _write(temporary, zip(names, read_all, strict=True))
        with writing_cache(path.parent, CONTENT):
            return _publish(temporary, path)


# Symbols, uint8 ``[step, 128]``, notes on each pitch, and quarter notes per bar; or why there are none.
Piece = tuple[np.ndarray, np.ndarray, float] | str


def _read(read: Callable[[str], Roll], name: str) -> Piece:
    """Read one piece, or return why it cannot be read."""
    try:
        roll = read(name)
    except (ValueError, OSError) as error:
        return str(error)
    if not roll.steps:
        return f"{name}: no steps"
    counts = np.bincount(music.notes(roll)["pitch"], minlength=PITCHES)
    return np.ascontiguousarray(roll.symbols.T), counts, roll.format.beats_per_bar


def _read_chunk(read: Callable[[str], Piece], names: Sequence[str]) -> list[Piece]:
    """Read the first pieces of a chunk, at least one, until they have `CHUNK_BYTES`."""
    pieces: list[Piece] = []
    size = 0
    for name in names:
        pieces.append(read(name))
        size += 0 if isinstance(pieces[-1], str) else pieces[-1][0].nbytes
        if size >= CHUNK_BYTES:
            break
    return pieces


def _read_all(names: Sequence[str], read: Callable[[str], Piece]) -> Iterator[Piece]:
    """Yield ``read`` of each name, in order.

    At most two chunks for each process, each of `CHUNK_BYTES` and one piece, wait for the caller.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, MOST_PROCESSES, len(names) // CHUNK)
    if processes < 2:
        yield from map(read, names)
        return
    chunks = iter([names[first : first + CHUNK] for first in range(0, len(names), CHUNK)])
    waiting: deque[tuple[Sequence[str], Future[list[Piece]]]] = deque()
    with ProcessPoolExecutor(processes, initializer=_begin_reading) as pool:
        while True:
            for chunk in islice(chunks, CHUNKS_WAITING * processes - len(waiting)):
                waiting.append((chunk, pool.submit(_read_chunk, read, chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            pieces = future.result()
            if rest := chunk[len(pieces) :]:
                waiting.appendleft((rest, pool.submit(_read_chunk, read, rest)))
            yield from pieces


def _begin_reading() -> None:
    """Prepare a new reading process."""
    # Without `freeze`, each collection of garbage in a process would walk, and so copy, the memory that it inherited.
    gc.freeze()
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with_parent, args=(parent.pid if parent else os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is gone: a killed parent tells nobody, and we would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


def _write(folder: Path, results: Iterable[tuple[str, Piece]]) -> None:
    """Write the three files of a cache."""
    names, steps, notes, meters, errors = [], [], [], [], {}
    with writing_cache(folder.parent, CONTENT), (folder / PIECES).open("wb") as file:
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
        raise ValueError(f"none of {len(errors)} files could be read: {abridged(list(errors.values()))}")
    with writing_cache(folder.parent, CONTENT):
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
            if RollCache.open(path) is None:  # not one that another process has published in the meantime
                with temporary_folder(path.parent) as aside:
                    path.rename(aside / path.name)
    return cache


def _code_hash() -> str:
    """Hash the code that makes symbols, so that no cache outlives a corrected reader."""
    readers = ("meter.py", "midi.py", "midi_events.py", "notes.py", "pairing.py", "phase.py", "roll.py")
    files = [Path(__file__), *(Path(music.__file__).with_name(name) for name in readers)]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
