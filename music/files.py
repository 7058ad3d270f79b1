"""Files that are either whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` so that no reader ever meets a half-written file.

    The bytes go to a temporary name in the same folder, reach the disk, and are then renamed; what was at
    ``path`` stays until that moment.

    Args:
        path: where the file shall be; its folder must exist.
        data: the whole content.

    Returns:
        The path written.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; the error keeps its ``errno`` and
            names ``path``. Nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            # Some file systems report a full disk only here, after which a rename would publish a damaged
            # file.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"could not write the file ({error.strerror})", str(path)) from error
    return path
