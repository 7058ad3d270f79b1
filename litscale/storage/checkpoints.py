"""Checkpoints: read as weights and plain values only, and stamped with a checksum of what they hold.

``torch.load`` does not compare the checksums of the archive that ``torch.save`` writes, so a flipped bit of a weight
goes unseen. Our own checkpoints therefore say what they hold, see `stamp`, and `read_checkpoint` compares.
"""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litscale.storage.archives import check_entries
from litscale.storage.exported import ENDING, read_exported
from litscale.storage.files import DamagedError
from litscale.storage.fingerprints import of_tensors

STAMP = "litscale_checksum"
THREADS = 8  # that hash tensors
LARGE = 2**18  # bytes of a tensor that a thread of its own hashes
_REFUSED = re.compile(r"GLOBAL|call reduce|Can only (create|build)|must be imported")  # in what torch says of code


def read_checkpoint(path: str | Path, option: str = "checkpoint", verified: bool = True) -> Any:
    """Load a file of ``torch.save``, or an exported ``.safetensors``, onto the CPU without running code that it holds.

    Published checkpoints keep the options that they were trained with as an ``argparse.Namespace``, which is allowed.
    A checksum, see `stamp`, is compared if there is one; that reads the whole file once.

    Args:
        path: the file.
        option: what the user calls it, for messages.
        verified: whether to compare the checksum; without that, only what is used of the tensors is read.

    Returns:
        What was saved; tensors are mapped into memory where the file allows it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no file of ``torch.save`` (a `DamagedError`), or holds more than weights and plain
            values; the message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} {path}: no such file")
    try:
        if Path(path).suffix == ENDING:
            content = read_exported(path)
            _verify(content, os.path.getsize(path))  # noqa: PTH202, path may be a string
            return content
        mapped = zipfile.is_zipfile(path)
        if mapped:
            # torch.save never compresses; a small compressed file could fill the memory.
            check_entries(path, compressed=False)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if verified:
            _verify(content, os.path.getsize(path))  # noqa: PTH202, path may be a string
        return content
    except pickle.UnpicklingError as error:
        if _REFUSED.search(str(error)):
            raise ValueError(
                f"{option} {path} holds more than weights and plain values; loading it could run code, so it is refused"
            ) from error
        raise DamagedError(
            f"{option} {path} is damaged or truncated, or no file of torch.save: use another copy"
        ) from error
    # A damaged file can raise whatever the code raises that rebuilds its objects.
    except Exception as error:
        raise DamagedError(f"{option} {path} is damaged or truncated{_reason(error)}: use another copy") from error


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, in brackets; empty where the error does not say.

    In a truncated file, torch seeks to places that are not there, which the system calls an invalid argument. The text
    of a KeyError is a bare key.
    """
    sought = isinstance(error, OSError) and error.errno == errno.EINVAL
    first_sentence = "" if sought or isinstance(error, KeyError) else str(error).partition(". ")[0]
    return f" ({first_sentence})" if first_sentence else ""


def stamp(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a checkpoint with a checksum of its content, which `read_checkpoint` compares.

    Args:
        checkpoint: what ``torch.save`` is to write; its values are not copied.
    """
    bare = {name: value for name, value in checkpoint.items() if name != STAMP}
    return bare | {STAMP: checksum(bare)}


def checksum(state: Any) -> str:
    """Compute a SHA-256 of a checkpoint: tensors on any device, numbers, strings, and mappings and sequences.

    It is the same before saving and after loading. Of an object of any other type, only the place counts.

    Args:
        state: a state dict, or any nesting of them; tensors are dense.

    Returns:
        64 hexadecimal digits.
    """
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        digests: list[str | Future[str]] = []
        for name, value in _leaves("", state):
            # Hashing releases the interpreter, so threads hash tensors side by side; handing over takes its time too.
            large = isinstance(value, Tensor) and value.numel() * value.element_size() >= LARGE
            digests.append(pool.submit(_digest, name, value) if large else _digest(name, value))
        done = (digest.result() if isinstance(digest, Future) else digest for digest in digests)
        return sha256(bytes.fromhex("".join(done))).hexdigest()


def _verify(content: Any, size: int) -> None:
    """Raise ValueError if a checkpoint's content contradicts its checksum; ``size`` is the file's, in bytes."""
    if not isinstance(content, dict) or STAMP not in content:
        return
    bare = {name: value for name, value in content.items() if name != STAMP}
    for name, value in _leaves("", bare):
        # Damaged strides make a small storage a huge tensor, which hashing would unfold.
        if isinstance(value, Tensor) and value.numel() * value.element_size() > size:
            raise ValueError(f"{name} is larger than the file")
    if checksum(bare) != content[STAMP]:
        raise ValueError(f"its checksum differs; if it was changed on purpose, remove its entry {STAMP}")


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield place and value of all leaves, and place and length of each mapping and sequence."""
    if isinstance(value, Mapping):
        yield name, f"mapping of {len(value)}"
        for key, entry in value.items():
            yield from _leaves(f"{name}.{key!r}", entry)
    elif isinstance(value, (list, tuple)):
        yield name, f"sequence of {len(value)}"
        for number, entry in enumerate(value):
            yield from _leaves(f"{name}[{number}]", entry)
    else:
        yield name, value


def _digest(name: str, value: Any) -> str:
    """Return the SHA-256 of a leaf and its place."""
    if isinstance(value, Tensor):
        return of_tensors({name: value})
    plain = isinstance(value, (bool, int, float, complex, str, bytes, type(None)))
    return sha256(f"{name} {value!r}".encode() if plain else name.encode()).hexdigest()
