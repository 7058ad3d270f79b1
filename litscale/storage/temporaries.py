"""Files and folders that are being written, under temporary names, and the removal of those that nobody writes.

A file or folder is written beside its final place and renamed when it is complete. A folder that is there already is
moved out of the way first (`publish_folder`), and back again if the process ends between these two renames.

A writer holds a lock (``flock``) on its temporary file, which the system takes back when the process ends, however it
ends. So a temporary file whose lock is free is left over from a process that was killed, and the next process that
writes into the folder removes it; a file that another process is writing is never touched. Where a file system has no
locks, nothing is removed. Locks of another machine may not be visible on a network file system, so what another machine
left over must also be a day old.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

NAME = re.compile(r"\.litscale-(?P<host>[\w.-]*)-[0-9a-f]{32}\.tmp")
DAY = 24 * 3600  # seconds


@contextmanager
def temporary_file(folder: Path) -> Iterator[BinaryIO]:
    """Open a new file in a folder for writing; its ``name`` is its path. It is gone at the end, unless renamed.

    The first one in a folder removes what killed processes left there.

    Raises:
        OSError: the folder is missing or not writable.
    """
    _remove_stale_once(folder)
    file = _locked(folder)
    try:
        with file:
            yield file
    finally:
        Path(file.name).unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a new folder in a folder, with a locked file beside it; otherwise as `temporary_file`."""
    with temporary_file(folder) as file:
        lock = Path(file.name)
        try:
            _content(lock).mkdir()
            yield _content(lock)
        finally:
            _remove_content(lock)


def publish_folder(temporary: Path, final: Path) -> Path:
    """Give a folder of `temporary_folder` its final name; one that has that name already is replaced as a whole.

    Args:
        temporary: the folder.
        final: where it shall be, in the same folder.

    Returns:
        The final path.

    Raises:
        OSError: it cannot be renamed; what was at ``final`` is there again.
    """
    lock = temporary.with_suffix("")
    while True:
        if final.exists():
            shutil.rmtree(_replaced(lock), ignore_errors=True)
            lock.write_text(final.name)  # where the replaced folder belongs, should this process be killed
            with suppress(FileNotFoundError):  # another process has just moved it
                final.rename(_replaced(lock))
        try:
            return temporary.rename(final)
        except OSError:
            if not final.exists():  # else another process was first, and is replaced in turn
                raise


def remove_stale(folder: Path) -> None:
    """Remove the temporary files and folders of killed processes from a folder, if there is such a folder."""
    # Tidying up is not what the caller is here for: what cannot be listed or removed stays.
    with suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if NAME.fullmatch(entry.name)]:
            _remove_if_stale(path)


@cache
def _remove_stale_once(folder: Path) -> None:
    remove_stale(folder)


def _remove_if_stale(path: Path) -> None:
    with suppress(OSError), path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        named = NAME.fullmatch(path.name)
        if named and named["host"] != _host():
            times = [each.stat().st_mtime for each in (path, *_content(path).glob("*"))]
            if time.time() - max(times) < DAY:
                return
        # The folder first: without its file, nobody would find it.
        _remove_content(path)
        path.unlink()


def _remove_content(lock: Path) -> None:
    """Remove the folder of a locked file; also remove the folder that it has replaced, or put it back."""
    shutil.rmtree(_content(lock), ignore_errors=True)
    if _replaced(lock).exists():
        final = lock.with_name(lock.read_text())
        # Another process may publish its own folder here at this moment; then that one stays.
        with suppress(OSError):
            if not final.exists():
                _replaced(lock).rename(final)
        if final.exists():
            shutil.rmtree(_replaced(lock), ignore_errors=True)


def _locked(folder: Path) -> BinaryIO:
    """Make a new file that this process has locked."""
    while True:
        path = folder / f".litscale-{_host()}-{uuid4().hex}.tmp"
        file = path.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another process took it for a stale one, before it was locked, and is about to remove it.
            file.close()
            continue
        except OSError:
            return file  # a file system without locks
        if path.exists():
            return file
        file.close()  # removed just before it was locked


def _content(lock: Path) -> Path:
    """Return the folder that belongs to a locked file."""
    return lock.with_name(f"{lock.name}.d")


def _replaced(lock: Path) -> Path:
    """Return where the folder is kept that a locked file's folder replaces."""
    return lock.with_name(f"{lock.name}.old")


def _host() -> str:
    return re.sub(r"[^\w.-]", "", platform.node())
