"""SIGTERM: what batch systems, ``timeout`` and ``kill`` send first."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM  # 143, what shells report of a process that SIGTERM ended
GRACE = 10.0  # seconds for the way out; then the process ends wherever it is

_ending = threading.Event()  # set when SIGTERM came


class Terminated(SystemExit):
    """Is raised when SIGTERM comes, and ends the process with status 143."""

    def __init__(self) -> None:
        super().__init__(STATUS)


def end_at_sigterm() -> None:
    """Make SIGTERM raise `Terminated` in the main thread, wherever it is; a second one ends the process.

    This is safe because files are written whole or not at all. Outside of the main thread, which alone may change what
    signals do, this function does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)


@contextmanager
def ending_at_sigterm() -> Iterator[None]:
    """Apply `end_at_sigterm` inside the block; afterwards SIGTERM does what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    end_at_sigterm()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _end(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _ending.set()
    # Python drops an exception that is raised while an object is deleted, and the way out may wait for other processes.
    last = threading.Timer(GRACE, os._exit, (STATUS,))
    last.daemon = True
    last.start()
    raise Terminated


# Registered here, before loggers and the like register theirs, and so called after those.
@atexit.register
def _leave() -> None:
    """End at once after SIGTERM. Python's own exit frees all memory piece by piece, which may take many seconds."""
    if _ending.is_set():
        for child in multiprocessing.active_children():
            child.terminate()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STATUS)
