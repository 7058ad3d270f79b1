"""The memory allocator of the C library, as training on CPUs needs it."""

from __future__ import annotations

import ctypes
import sys

import torch

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones, where there is no accelerator.

    By default it gives each large tensor's memory back to the system and fetches it again, page by page. With other C
    libraries nothing changes.
    """
    if sys.platform != "linux" or torch.accelerator.is_available():
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap, too
    library.mallopt(M_TRIM_THRESHOLD, -1)  # whose top is never given back
    library.mallopt(M_TOP_PAD, 100_000_000)  # and grows by 100 MB at least
