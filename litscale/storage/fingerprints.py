"""Short texts that change with the data, for caches of what is computed from it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np

THREADS = 16  # that ask for sizes and times: on network file systems each answer is a wait


def of_arrays(*arrays: np.ndarray | None) -> str:
    """A hash of types, shapes and content."""
    found = sha256()
    for array in arrays:
        if array is not None:
            found.update(f"{array.dtype} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        found.update(b";")
    return found.hexdigest()


def of_files(paths: Iterable[bytes | Path]) -> str:
    """A hash of name, folder's name, size and time of change of each file; the whole path plays no part, as data moves.

    Raises:
        OSError: a file is gone.
    """
    found = sha256()
    with ThreadPoolExecutor(THREADS) as pool:
        for line in pool.map(_facts, map(os.fsencode, paths)):
            found.update(line)
    return found.hexdigest()


def _facts(path: bytes) -> bytes:
    stat = os.stat(path)  # noqa: PTH116, names need not be text
    return b"/".join(path.split(b"/")[-2:]) + f"\0{stat.st_size} {stat.st_mtime_ns}\n".encode()
