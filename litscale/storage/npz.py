"""Arrays in ``.npy`` and ``.npz`` files, read without running code, into no more memory than the file justifies."""

from __future__ import annotations

import operator
import os
import struct
import zipfile
from collections.abc import Collection
from functools import reduce
from pathlib import Path
from typing import IO

import numpy as np

from litscale.storage.archives import check_entries
from litscale.storage.files import named_errors

KIND = "damaged, truncated or no file of plain arrays"
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: signature, ..., lengths of the name and of the extra field


def read_npz(path: str | Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz`` file.

    Args:
        path: the file. Compressed ones may expand to 64 MiB, or to 32 times their size if that is more.
        names: those to read, where they are there; None = all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds objects, or declares more than its size allows; the message names it.
    """
    with named_errors(path, KIND):
        check_entries(path)
        result = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if entry.filename.endswith(".npy") and (names is None or name in names):
                    with archive.open(entry) as file:
                        _check_header(file, entry.file_size)
                    with archive.open(entry) as file:
                        result[name] = np.lib.format.read_array(file, allow_pickle=False)
        return result


def npz_names(path: str | Path) -> list[str]:
    """List the names of the arrays of an ``.npz`` file; raises as `read_npz` does."""
    with named_errors(path, KIND), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def is_stored(path: str | Path) -> bool:
    """Return whether a file is an ``.npz`` whose arrays are not compressed, for `map_npz`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    # A damaged archive can raise whatever zipfile raises. It cannot be mapped; whoever reads it then names the damage.
    except Exception:
        return False


def map_npz(path: str | Path, name: str) -> np.ndarray:
    """Return one array of an uncompressed ``.npz`` file, as a read-only map of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or has no such array; the message names it.
    """
    with named_errors(path, KIND):
        check_entries(path, compressed=False)
        with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
            if f"{name}.npy" not in archive.namelist():
                raise ValueError(f"it holds no {name}")
            entry = archive.getinfo(f"{name}.npy")
            file.seek(entry.header_offset)
            signature, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise ValueError("an entry is not where the archive says")
            file.seek(name_length + extra_length, os.SEEK_CUR)
            shape, columns_first, dtype = _check_header(file, entry.file_size)
            return np.memmap(path, dtype, "r", file.tell(), shape, "F" if columns_first else "C")


def read_npy(path: str | Path, mapped: bool = False) -> np.ndarray:
    """Read the array of an ``.npy`` file.

    Args:
        path: the file.
        mapped: return a read-only map of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds objects; the message names it.
    """
    with named_errors(path, KIND), Path(path).open("rb") as file:
        shape, columns_first, dtype = _check_header(file, os.fstat(file.fileno()).st_size)
        if mapped and 0 not in shape:
            return np.memmap(path, dtype, "r", file.tell(), shape, "F" if columns_first else "C")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array that takes ``size`` bytes with it: shape, order (true = columns first) and type.

    Raises:
        ValueError: it declares another number of bytes, or objects; or whatever numpy raises.
    """
    start = file.tell()
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read_header(file)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, not numbers or text")
    # In Python's numbers, which do not overflow.
    declared = file.tell() - start + reduce(operator.mul, shape, dtype.itemsize)
    if min(shape, default=0) < 0 or declared != size:
        raise ValueError(f"it has {size} bytes, not the {declared} of {dtype} {list(shape)}")
    return shape, columns_first, dtype
