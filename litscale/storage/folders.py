"""Folders that are either whole or absent."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

UNFINISHED, REPLACED = ".unfinished-", ".replaced-"  # what hidden names begin with
LOCK = ".lock"


class NewFolder:
    """A folder in the making: hidden beside its final place, and moved there when all of it is written.

    It is locked by its process, and the lock ends with the process however that ends; so `remove_abandoned` tells a
    folder that is being written from one that a killed process left.

    Args:
        parent: where the folder shall be; is made if need be.

    Attributes:
        path: where to write.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self.path = parent / f"{UNFINISHED}{uuid4().hex}"
        self.path.mkdir()
        self._lock: int | None = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks, where nothing is ever taken for abandoned
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def publish(self, name: str) -> Path:
        """Give the folder its name; one that has that name already is replaced as a whole.

        Raises:
            OSError: it cannot be renamed.
        """
        final, old = self.path.with_name(name), self.path.with_name(f"{REPLACED}{name}")
        while True:
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
            try:
                self.path.rename(final)
                break
            except OSError:
                if not final.exists():  # else another process was first, and is replaced in turn
                    raise
        (final / LOCK).unlink()
        self._unlock()
        shutil.rmtree(old, ignore_errors=True)
        return final

    def discard(self) -> None:
        """Delete it, whatever is in it; does nothing after `publish`."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


def remove_abandoned(parent: Path) -> None:
    """Tidy up after processes that were killed: delete what they were making, restore what they were replacing."""
    for folder in parent.glob(f"{UNFINISHED}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # its process is just making it, or has just renamed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its process is alive, or the file system has no locks
            continue
        finally:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)
    for old in parent.glob(f"{REPLACED}*"):
        final = old.with_name(old.name.removeprefix(REPLACED))
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(FileNotFoundError, FileExistsError):  # another process is tidying up too
                old.rename(final)
