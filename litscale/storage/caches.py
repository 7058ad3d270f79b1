"""Where caches lie, and what to do when one cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root(cache_dir: str | None = None) -> Path:
    """Return the folder of all caches.

    It is ``cache_dir``, else ``$LITSCALE_CACHE``, else ``litscale`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    given = cache_dir or os.environ.get("LITSCALE_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "litscale")).expanduser()


@contextmanager
def writing_cache(folder: Path, content: str) -> Iterator[None]:
    """Make a folder for the caller to write into; an OSError on the way says which option to change.

    Args:
        folder: of the cache.
        content: what is written, for the message.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not write the cache of {content} ({error.strerror}); make room there, or set the option cache_dir "
            "(or the environment variable LITSCALE_CACHE) to another folder",
            str(folder),
        ) from error
