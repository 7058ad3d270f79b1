"""Pickles of plain values and numpy arrays, read without running code."""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from litscale.storage.files import named_errors


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes as protocol 2 stores them; only latin-1 is ever used."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unknown encoding {encoding!r}")
    return text.encode("latin1")


class _Kind:
    """A type of elements as pickles make it: first the code, then a state, of which only the order of bytes counts.

    numpy's own types would take any state, and a damaged one crashes the process.
    """

    def __init__(self, code: str | bytes, *_: object) -> None:
        named = re.fullmatch(r"[|<>=]?([biufcSUO]\d+)", code.decode("ascii") if isinstance(code, bytes) else code)
        if named is None:
            raise pickle.UnpicklingError(f"unknown type of elements {code!r}")
        self.dtype = np.dtype(named[1])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("|", "<", ">", "="):
            raise pickle.UnpicklingError(f"unknown order of bytes {state[1]!r}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array as pickles make it: first an empty one, then a state of version, shape, kind, order and content."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, kind, columns_first, content = state
        super().__setstate__((version, shape, kind.dtype, columns_first, content))


def _empty(*_: object) -> _Array:
    return _Array((0,), np.uint8)


def _from_buffer(content: bytes, kind: _Kind, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(content, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Kind, content: bytes) -> Any:
    if len(content) != kind.dtype.itemsize or kind.dtype.hasobject:
        raise pickle.UnpicklingError(f"{len(content)} bytes are no {kind.dtype}")
    return np.frombuffer(content, kind.dtype)[0]


def _allowed() -> dict[tuple[str, str], Callable[..., Any] | str]:
    """Return what a pickle may call, under the names of numpy 1 and 2, and what is called instead."""
    allowed: dict[tuple[str, str], Callable[..., Any] | str] = {
        ("numpy", "ndarray"): "the class, which is an argument only",
        ("numpy", "dtype"): _Kind,
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = _empty
        allowed[f"{core}.multiarray", "scalar"] = _scalar
        allowed[f"{core}.numeric", "_frombuffer"] = _from_buffer
    return allowed


class _Refused(pickle.UnpicklingError):
    """The pickle wants to call something."""


class _Unpickler(pickle.Unpickler):
    allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise _Refused(f"{module}.{name}")
        return self.allowed[module, name]


def load_plain(path: Path) -> Any:
    """Read a pickle that holds numbers, strings, containers and numpy arrays.

    Args:
        path: the file; Python 2 pickles are read too, their strings as latin-1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no whole pickle, or holds anything else, which could run code; the message names the file.
    """
    try:
        with named_errors(path, "damaged, truncated or no pickle"), path.open("rb") as file:
            _scan(file, path.stat().st_size)
            file.seek(0)
            return _Unpickler(file, encoding="latin1").load()
    except ValueError as error:
        if not isinstance(error.__cause__, _Refused):
            raise
        raise ValueError(
            f"{path}: the pickle asks for {error.__cause__}, and loading that could run code, so it is refused; only "
            "numbers, strings, containers and numpy arrays are read"
        ) from error


def _scan(file: BinaryIO, size: int) -> None:
    """Refuse a pickle whose indices into the unpickler's memo make Python allocate more than the file's size.

    Lengths of strings are compared with what is there by `pickletools`.
    """
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > size:  # type: ignore[operator]
            raise pickle.UnpicklingError(f"it puts a value into place {argument}")
