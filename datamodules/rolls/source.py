"""`RollSource`: where pieces come from; and the cache that they are read into."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from datamodules.messages import abridged
from datamodules.rolls.cache import RollCache, build_cache, cache_path
from litscale.music.roll import Roll, RollFormat
from litscale.storage.caches import cache_root
from litscale.storage.temporaries import remove_stale


class RollSource(ABC):
    """A collection of pieces. To add one, subclass this and give its ``class_path`` as the option ``source``.

    Sources are pickled, because other processes read the pieces.

    Attributes:
        items: what the pieces are, for messages.
        voices: how many notes sound at a step, where that is a constant by which scores are published; None otherwise.
    """

    items = "pieces"
    voices: int | None = None

    @abstractmethod
    def names(self) -> list[str]:
        """Return the pieces, readable or not, always in the same order; splits are chosen by their names."""

    @abstractmethod
    def read(self, name: str, form: RollFormat) -> Roll:
        """Read a piece.

        Args:
            name: one of `names`.
            form: encoding, steps per beat and velocity bins of the roll, of all 128 pitches.

        Returns:
            A roll ``[128, step]`` of that format; tempo and meter may be its own.

        Raises:
            ValueError: the piece is damaged; it is set aside, and listed with the message.
            OSError: it cannot be opened; it is set aside and listed, too.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return text that changes whenever a piece does, such as a hash of the files; it need not cover your code."""

    def classes(self, names: Sequence[str]) -> list[str] | None:
        """Return the class of each of some pieces, None if they have none."""
        return None

    def splits(self) -> Mapping[str, str] | None:
        """Return piece -> ``train``, ``val`` or ``test`` if the collection is published with splits, else None.

        They override ``val_fraction`` and ``test_fraction`` of the data module, and its ``split_files`` overrides them.
        """
        return None


@dataclass(frozen=True)
class CachedPieces:
    """The pieces of a source in one format, and the cache that they are read into.

    Attributes:
        source: where they come from.
        form: the format of the rolls, over all 128 pitches.
        cache_dir: the folder of all caches; None = `cache_root`'s.
    """

    source: RollSource
    form: RollFormat
    cache_dir: str | None

    def prepare(self) -> None:
        """Build the cache if it is missing or damaged; raises as the source's ``names`` and `build_cache` do."""
        path = self._path()
        remove_stale(path.parent)
        if RollCache.open(path) is None:
            build_cache(path, self.source.names(), self._read, self.source.items)

    def open(self, strict: bool) -> RollCache:
        """Open the cache.

        Args:
            strict: raise if a piece could not be read.

        Raises:
            FileNotFoundError: the source is not there, or `prepare` did not run.
            ValueError: ``strict``, and a piece could not be read.
        """
        path = self._path()
        cache = RollCache.open(path)
        if cache is None:
            raise FileNotFoundError(
                f"no cache of rolls at {path}: call prepare_data() first; with several machines, set cache_dir to a "
                "folder that all of them see, or prepare_data_per_node"
            )
        if strict and cache.errors:
            count = len(cache.errors) + len(cache.names)
            raise ValueError(
                f"strict: {len(cache.errors)} of {count} {self.source.items} cannot be read: "
                f"{abridged(list(cache.errors.values()))}; remove them, or set strict to false to skip them"
            )
        return cache

    def _read(self, name: str) -> Roll:
        """Read a piece; raises ValueError if it has another format than the one asked for."""
        roll = self.source.read(name, self.form)
        if replace(roll.format, tempo=self.form.tempo, beats_per_bar=self.form.beats_per_bar) != self.form:
            raise ValueError(f"{name}: {type(self.source).__name__}.read gave {roll.format} for {self.form}")
        return roll

    def _path(self) -> Path:
        """Return the cache's folder, whose name changes with all that the symbols depend on."""
        options = {
            "source": f"{type(self.source).__qualname__} {_code(self.source)} {self.source.fingerprint()}",
            "encoding": self.form.encoding,
            "steps_per_beat": self.form.steps_per_beat,
            "velocity_bins": self.form.velocity_bins,
        }
        return cache_path(cache_root(self.cache_dir), options)


def _code(source: RollSource) -> str:
    """Hash the files that define a source, so that no cache outlives a corrected source."""
    files = [
        vars(sys.modules[kind.__module__]).get("__file__")
        for kind in type(source).__mro__
        if issubclass(kind, RollSource)
    ]
    return sha256(b"".join(Path(file).read_bytes() for file in files if file)).hexdigest()
