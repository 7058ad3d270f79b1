"""`MidiFolder`: MIDI files in a folder, and how a MIDI file is read.

A file is known by its path relative to the folder, with forward slashes, on every system.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from datamodules.messages import abridged
from datamodules.rolls.source import RollSource
from litscale import music
from litscale.music.roll import Roll, RollFormat

SUFFIXES = (".mid", ".midi")
LONGEST = 2**17  # steps of a piece: over two hours of sixteenths at 120 quarter notes a minute, in 16 MB


@dataclass(frozen=True)
class MidiReader:
    """How MIDI files are read.

    Args:
        phase: where the grid lies against the ticks, in steps; auto estimates it for each file.
        drums: also read the drum channel, as pitches.
        pedal: let notes ring until the sustain pedal comes up or their pitch is struck again.
        longest: steps that a file may have; a longer one counts as one that cannot be read.

    Raises:
        ValueError: an option is impossible.
    """

    phase: Literal["auto"] | float = "auto"
    drums: bool = False
    pedal: bool = False
    longest: int = LONGEST

    def __post_init__(self) -> None:
        if isinstance(self.phase, str) and self.phase != "auto":
            raise ValueError(f"phase must be auto or a number of steps, not {self.phase!r}")
        if self.longest < 1:
            raise ValueError(f"longest must be at least 1 step, not {self.longest}")

    def read(self, path: str | Path, form: RollFormat) -> Roll:
        """Read a file as a roll ``[128, step]`` with a format's encoding and grid; raises as `music.read_midi` does."""
        return music.read_midi(
            path,
            form.encoding,
            form.steps_per_beat,
            self.phase,
            velocity_bins=form.velocity_bins,
            drums=self.drums,
            longest=self.longest,
            pedal=self.pedal,
        )


READER = MidiReader()


class MidiFolder(RollSource):
    """All MIDI files in a folder and the folders in it; the first-level folders are classes."""

    items = "MIDI files"

    def __init__(self, folder: str, reader: MidiReader = READER) -> None:
        """Store the options; nothing is read yet.

        Args:
            folder: where to look for .mid and .midi files.
            reader: how they are read.
        """
        self.folder, self.reader = Path(folder).expanduser(), reader

    def names(self) -> list[str]:
        """Return the files; raises as `midi_files` does."""
        return midi_files(self.folder)

    def read(self, name: str, form: RollFormat) -> Roll:
        """Read a file; raises as `music.read_midi` does."""
        return self.reader.read(self.folder / name, form)

    def fingerprint(self) -> str:
        """Return how files are read, and hashes of all of them; raises as `midi_files` does."""
        return f"{self.reader} {content_hashes(self.folder, self.names())}"

    def classes(self, names: Sequence[str]) -> list[str]:
        """Return the first-level folder of each file.

        Raises:
            ValueError: a file lies directly in the folder.
        """
        if loose := [name for name in names if "/" not in name]:
            raise ValueError(
                f"labels: {len(loose)} files are directly in the folder and have no class: {abridged(loose)}; move "
                "them into sub-folders named after their classes, or set labels to false"
            )
        return [name.split("/")[0] for name in names]


def midi_files(folder: str | Path) -> list[str]:
    """List the MIDI files in a folder and its subfolders, also those that symbolic links lead to.

    A folder that can be reached by several ways is read once, without links if possible, because its pieces would be in
    several splits otherwise, and links may lead in circles. A link to a file that is not there is listed.

    A folder that can be reached by several ways is read once, without links if it can be: its pieces would be in
    several splits otherwise, and links may lead in circles. A link to a file that is not there is listed.

    Args:
        folder: where to look; suffixes ``.mid`` and ``.midi``, in any case.

    Returns:
        Relative paths, sorted.

    Raises:
        FileNotFoundError: no such folder, or no MIDI file in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}; give one that holds MIDI files")
    names = sorted(path.relative_to(root).as_posix() for path in _files(root) if path.suffix.lower() in SUFFIXES)
    if not names:
        raise FileNotFoundError(
            f"folder: no .mid or .midi file in {folder} or the folders in it; give one that holds MIDI files"
        )
    return names


def _files(root: Path) -> Iterator[Path]:
    """Yield the files, and the links to nothing, in a folder and those below it; see `midi_files`."""
    seen: set[str] = set()
    waiting = deque([root])
    while waiting:
        for folder, subfolders, names in os.walk(waiting.popleft()):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders.sort()
            waiting.extend(Path(folder, name) for name in subfolders if Path(folder, name).is_symlink())
            yield from (path for name in names if (path := Path(folder, name)).is_file() or not path.exists())


def content_hashes(folder: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Return name -> hash of the file's bytes; ``unreadable`` for a file that cannot be opened."""
    root = Path(folder).expanduser()
    hashes = {}
    for name in names:
        try:
            hashes[name] = sha256((root / name).read_bytes()).hexdigest()
        except OSError:
            hashes[name] = "unreadable"
    return hashes
