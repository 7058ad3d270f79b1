"""Where rolls come from: a folder of MIDI files, or the chorales; and the cache of either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.rolls.bach import chorale_files, read_chorale
from datamodules.rolls.cache import RollCache, build_cache, cache_path, default_cache_dir
from datamodules.rolls.folders import content_hashes, midi_files, some
from litscale import music
from litscale.music.roll import Roll, RollFormat
from litscale.storage.temporaries import remove_stale

LONGEST = 2**17  # steps of a piece: over two hours of sixteenths at 120 quarter notes a minute, in 16 MB


@dataclass(frozen=True)
class RollSource:
    """Pieces, and how they are read. The options are those of `PianoRollDataModule`.

    Raises:
        ValueError: not exactly one of ``folder`` and ``corpus`` is given, or an option is impossible.
    """

    folder: str | None
    corpus: Literal["bach"] | None
    encoding: str
    steps_per_beat: int
    velocity_bins: int
    phase: Literal["auto"] | float
    drums: bool
    pedal: bool
    cache_dir: str | None
    longest: int = LONGEST

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.corpus is None):
            given = "both are" if self.folder is not None else "neither is"
            raise ValueError(f"give one of folder (of MIDI files) and corpus (bach); {given} given")
        if self.corpus not in (None, "bach"):
            raise ValueError(f"corpus must be bach, not {self.corpus!r}")
        if isinstance(self.phase, str) and self.phase != "auto":
            raise ValueError(f"phase must be auto or a number of steps, not {self.phase!r}")

        if self.longest < 1:
            raise ValueError(f"longest must be at least 1 step, not {self.longest}")
        _ = self.format  # checks the encoding, the grid and the bins

    @property
    def format(self) -> RollFormat:
        """The format of the cached rolls: all 128 pitches."""
        return RollFormat(self.encoding, self.steps_per_beat, self.velocity_bins)

    @property
    def root(self) -> Path:
        """The folder of MIDI files; the working directory for a corpus."""
        return Path(self.folder or "").expanduser()

    def names(self) -> list[str]:
        """The pieces, readable or not.

        Raises:
            FileNotFoundError: no such folder, or no MIDI file in it.
        """
        return list(chorale_files()) if self.folder is None else midi_files(self.folder)

    def read(self, name: str) -> Roll:
        """A piece as a roll ``[128, step]``.

        Raises:
            ValueError: the file is damaged or has no notes.
            OSError: the file cannot be opened.
        """
        return read_chorale(name, self.format) if self.folder is None else self.read_midi(self.root / name)

    def read_midi(self, path: str | Path) -> Roll:
        """Any MIDI file as a roll ``[128, step]``, read as the pieces are; raises as `music.read_midi` does."""
        return music.read_midi(
            path,
            self.encoding,
            self.steps_per_beat,
            self.phase,
            velocity_bins=self.velocity_bins,
            drums=self.drums,
            longest=self.longest,
            pedal=self.pedal,
        )

    def prepare(self) -> None:
        """Build the cache if it is missing or damaged; raises as `names` and `build_cache` do."""
        path = self._cache_path()
        remove_stale(path.parent)
        if RollCache.open(path) is None:
            build_cache(path, self.names(), self.read, "MIDI files" if self.corpus is None else "chorales")

    def open(self, strict: bool) -> RollCache:
        """The cache.

        Args:
            strict: raise if a file could not be read.

        Raises:
            FileNotFoundError: no such folder, no MIDI file in it, or `prepare` did not run.
            ValueError: ``strict``, and a file could not be read.
        """
        path = self._cache_path()
        cache = RollCache.open(path)
        if cache is None:
            raise FileNotFoundError(
                f"no cache of rolls at {path}: call prepare_data() first; with several machines, set cache_dir to a "
                "folder that all of them see, or prepare_data_per_node"
            )
        if strict and cache.errors:
            raise ValueError(
                f"strict: {len(cache.errors)} of {len(cache.errors) + len(cache.names)} files cannot be read: "
                f"{some(list(cache.errors.values()))}; remove them, or set strict to false to skip them"
            )
        return cache

    def _cache_path(self) -> Path:
        """The cache's folder; its name holds all that the symbols depend on."""
        directory = default_cache_dir() if self.cache_dir is None else Path(self.cache_dir).expanduser()
        options: dict[str, object] = {
            "encoding": self.encoding,
            "steps_per_beat": self.steps_per_beat,
            "velocity_bins": self.velocity_bins,
        }
        if self.folder is None:
            # The version of music21, which is part of every cache's name, stands for its scores.
            return cache_path(directory, {}, {**options, "corpus": self.corpus})
        options |= {"phase": self.phase, "drums": self.drums, "pedal": self.pedal, "longest": self.longest}
        return cache_path(directory, content_hashes(self.root, midi_files(self.root)), options)
