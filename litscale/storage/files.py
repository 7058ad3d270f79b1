"""Files that are either whole or absent."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from litscale.storage.temporaries import temporary_file


class DamagedError(ValueError):
    """A file that cannot be read as what it should be; the message names it."""


@contextmanager
def named_errors(path: str | Path, kind: str) -> Iterator[None]:
    """Turn what a reader of files raises into one error that names the file.

    FileNotFoundError and DamagedError stay as they are.

    Args:
        path: what is read.
        kind: what is wrong with it, if anything is; the message adds the reason in brackets.

    Raises:
        DamagedError: whatever was raised.
    """
    try:
        yield
    except (FileNotFoundError, DamagedError):
        raise
    # A damaged file can raise whatever the parser's code can raise, MemoryError and RecursionError included.
    except Exception as error:
        raise DamagedError(f"{path}: {kind} ({_reason(error)})") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; the message names it.
    """
    with named_errors(path, "damaged, or no JSON"):
        return json.loads(Path(path).read_bytes())


def _reason(error: Exception) -> str:
    """Return what an error says, or its type if it says nothing."""
    return str(error) or type(error).__name__


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write that appears at ``path`` when it is complete, and never half.

    The bytes go to a temporary name in the same folder (see `litscale.storage.temporaries`), reach the disk at the end,
    and are then renamed; what was at ``path`` stays until that moment.

    Args:
        path: where the file shall be; its folder must exist.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; the error keeps its ``errno`` and
            names ``path``. Nothing is left behind.
    """
    path = Path(path)
    try:
        with temporary_file(path.parent) as file:
            yield file
            file.flush()
            # Some file systems report a full disk only here, after which a rename would publish a damaged
            # file.
            os.fsync(file.fileno())
            Path(file.name).replace(path)
            _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, f"could not write the file ({error.strerror})", str(path)) from error


def _sync_folder(folder: Path) -> None:
    """Make sure that the name of a new file reaches the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` as `atomic_file` does.

    Args:
        path: where the file shall be; its folder must exist.
        data: the whole content.

    Returns:
        The path written.

    Raises:
        OSError: the file could not be written.
    """
    with atomic_file(path) as file:
        file.write(data)
    return Path(path)


def write_image(path: str | Path, image: Image.Image, kind: str = "PNG", **options: object) -> Path:
    """Write an image as `write_atomically` does; ``kind`` and the options are those of Pillow's ``save``.

    Raises:
        OSError: the file could not be written.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return write_atomically(path, buffer.getvalue())


def write_animation(path: str | Path, frames: Iterable[Image.Image], seconds: float = 0.12, pause: float = 2.0) -> Path:
    """Write a GIF that repeats for ever.

    Args:
        path: where the GIF goes; whole or not at all.
        frames: in order, all of one size; at least one.
        seconds: how long a frame stays.
        pause: how long the last frame stays.

    Returns:
        The path written.

    Raises:
        OSError: the file could not be written.
    """
    first, *rest = frames
    durations = [int(1000 * seconds)] * len(rest) + [int(1000 * pause)]
    return write_image(path, first, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
