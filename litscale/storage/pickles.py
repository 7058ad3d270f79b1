"""Pickles of plain values and numpy arrays, read without running code."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 stores bytes as; only latin-1 is ever used."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unknown encoding {encoding!r}")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """What a pickle may call, under the names of numpy 1 and 2; arrays themselves tell how they are rebuilt."""
    rebuild: Any = np.zeros(1).__reduce__()[0]
    from_buffer: Any = np.zeros(1).__reduce_ex__(5)[0]
    scalar: Any = np.int64(0).__reduce__()[0]
    found: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray", "_reconstruct"] = rebuild
        found[f"{core}.multiarray", "scalar"] = scalar
        found[f"{core}.numeric", "_frombuffer"] = from_buffer
    return found


class _Refused(pickle.UnpicklingError):
    """The pickle wants to call something."""


class _Unpickler(pickle.Unpickler):
    allowed = _allowed()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self.allowed:
            raise _Refused(f"{module}.{name}")
        return self.allowed[module, name]


def load_plain(path: Path) -> Any:
    """Read a pickle that holds numbers, strings, containers and numpy arrays.

    Args:
        path: the file; Python 2 pickles are read too, their strings as latin-1.

    Raises:
        ValueError: it is no whole pickle, or holds anything else, which could run code; the message names the file.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except _Refused as error:
        raise ValueError(
            f"{path}: the pickle asks for {error}, and loading that could run code, so it is refused; only numbers, "
            "strings, containers and numpy arrays are read"
        ) from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise ValueError(f"{path}: damaged, truncated or no pickle ({error}); download it again") from error
