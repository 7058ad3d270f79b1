"""Hashes of files, arrays and tensors: short texts that change with the data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

THREADS = 16  # that ask for sizes and times: on network file systems each answer is a wait


def of_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it."""
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def of_tensors(tensors: Mapping[str, Tensor], described: str = "") -> str:
    """Return a hash of names, types, shapes and content.

    Args:
        tensors: name -> dense tensor, on any device.
        described: other text that the hash depends on.
    """
    digest = sha256(described.encode())
    for name, value in tensors.items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_arrays(*arrays: np.ndarray | None) -> str:
    """Return a hash of types, shapes and content."""
    digest = sha256()
    for array in arrays:
        if array is not None:
            digest.update(f"{array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(b";")
    return digest.hexdigest()


def of_files(paths: Iterable[bytes | Path]) -> str:
    """Return a hash of each file's name, folder name, size and time of change, but not of its full path, as data moves.

    Raises:
        OSError: a file is gone.
    """
    digest = sha256()
    with ThreadPoolExecutor(THREADS) as pool:
        for line in pool.map(_described, map(os.fsencode, paths)):
            digest.update(line)
    return digest.hexdigest()


def _described(path: bytes) -> bytes:
    stat = os.stat(path)  # noqa: PTH116, names need not be text
    return b"/".join(path.split(b"/")[-2:]) + f"\0{stat.st_size} {stat.st_mtime_ns}\n".encode()
