"""Checks of zip archives (``.npz`` files, checkpoints) before anything of them is allocated or inflated."""

from __future__ import annotations

import zipfile
from pathlib import Path

ALWAYS = 2**26  # bytes that any file may expand to
MOST_EXPANSION = 32  # times a file's size, beyond that


def most_bytes(size: int) -> int:
    """Return what a compressed file of so many bytes may expand to: 64 MiB, or 32 times its size if that is more.

    Compressed images and features stay below 2 times their size; a file of zeros that fills the memory reaches 1000.
    """
    return max(ALWAYS, MOST_EXPANSION * size)


def check_entries(path: str | Path, compressed: bool = True) -> None:
    """Refuse an archive that declares more than its size allows; nothing is decompressed.

    Args:
        path: of the archive.
        compressed: whether its entries may be compressed.

    Raises:
        zipfile.BadZipFile: it is no archive, or damaged.
        ValueError: it declares more.
    """
    size = Path(path).stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if not compressed and any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed")
    declared = sum(entry.file_size for entry in entries)
    if declared > (most_bytes(size) if compressed else size):
        raise ValueError(f"it declares {declared} bytes in a file of {size}")
