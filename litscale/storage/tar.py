"""What is in a tar file, and at which byte, so that it can be read at random places."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from litscale.storage.files import named_errors

KIND = "cannot be read as a tar file"
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MOST_CONTENT = 2**20  # bytes of a member that are read with the list
NAME, MAGIC, PREFIX = slice(0, 100), slice(257, 263), slice(345, 500)  # of a member's header


@dataclass(frozen=True)
class TarMember:
    """A file in a tar file.

    Attributes:
        name: as it was packed.
        start: its first byte.
        size: in bytes.
        content: its first `MOST_CONTENT` bytes, where they were asked for.
    """

    name: str
    start: int
    size: int
    content: bytes | None


def tar_members(path: str | Path, with_content: Collection[str] = ()) -> Iterator[TarMember]:
    """Yield the files in a tar file, in order; of files whose content is not asked for, only the headers are read.

    Args:
        path: the tar file.
        with_content: endings of names, in lower case, of which the content is read too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is compressed, damaged or cut short, or has links or sparse files; the message names it.
    """
    endings = tuple(with_content)
    with named_errors(path, KIND), Path(path).open("rb") as file:
        _refuse_compression(file)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            before = -1
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or they would all be kept
                if member.size < 0 or archive.offset <= before:
                    raise ValueError(f"{member.name!r} has an impossible size")
                before = archive.offset
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise ValueError(
                        f"{member.name!r} is not a regular file, but a link or sparse; pack the files themselves"
                    )
                content = None
                if endings and member.name.lower().endswith(endings):
                    file.seek(member.offset_data)
                    content = file.read(min(member.size, MOST_CONTENT))
                yield TarMember(member.name, member.offset_data, member.size, content)
            _check_end(file, archive.offset)


def read_member(path: str | Path, start: int, size: int) -> tuple[str, bytes]:
    """Read name and content of the member whose content begins at a byte; no file stays open.

    Args:
        path: the tar file.
        start: a member's ``start``.
        size: its size.

    Returns:
        Its name, cut if it is long, and its content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is shorter than that; the message names it.
    """
    with named_errors(path, KIND), Path(path).open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), tarfile.BLOCKSIZE + size, start - tarfile.BLOCKSIZE)
    header, content = data[: tarfile.BLOCKSIZE], data[tarfile.BLOCKSIZE :]
    with named_errors(path, KIND):
        if len(content) < size:
            raise ValueError(f"it ends before byte {start + size}")
    parts = (PREFIX, NAME) if header[MAGIC] == b"ustar\0" else (NAME,)
    names = [header[part].split(b"\0")[0].decode(errors="replace") for part in parts]
    return "/".join(name for name in names if name), content


def _refuse_compression(file: BinaryIO) -> None:
    start = file.read(8)
    file.seek(0)
    for magic, name in COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(f"it is compressed with {name}, so nothing in it can be found; unpack it to a plain .tar")


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raise ValueError unless a tar file properly ends here; Python takes anything that is no header for the end."""
    file.seek(offset)
    rest = file.read(MOST_CONTENT)
    if len(rest) < tarfile.BLOCKSIZE:
        raise ValueError("it has no end mark, so it is cut short")
    if rest.strip(b"\0"):
        raise ValueError(f"what follows byte {offset} is not a file")
