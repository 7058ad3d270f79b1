from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest

from datamodules import PianoRollDataModule

STEP = 0.125  # seconds of a sixteenth at 120 quarter notes per minute

Note = tuple[int, int, int]  # pitch, first step, number of steps


def notes_to_file(path: Path, notes: Sequence[Note], velocity: int = 80) -> Path:
    """A MIDI file with one piano."""
    midi = pretty_midi.PrettyMIDI(initial_tempo=120)
    piano = pretty_midi.Instrument(program=0)
    for pitch, start, steps in notes:
        piano.notes.append(pretty_midi.Note(velocity, pitch, start * STEP, (start + steps) * STEP))
    midi.instruments.append(piano)
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.write(str(path))
    return path


def random_song(path: Path, steps: int, seed: int = 0, low: int = 48, high: int = 72) -> Path:
    """A MIDI file of exactly so many steps, with random notes between two pitches; both of them occur."""
    random = np.random.default_rng(seed)
    notes = [(int(random.integers(low, high + 1)), start, 2) for start in range(0, steps - 1, 2)]
    return notes_to_file(path, [(low, 0, 1), (high, 1, 1), *notes, (low, steps - 1, 1)], 1 + seed % 127)


@pytest.fixture
def write_notes() -> Callable[..., Path]:
    """The function `notes_to_file`."""
    return notes_to_file


@pytest.fixture
def write_song() -> Callable[..., Path]:
    """The function `random_song`."""
    return random_song


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Twelve files of 64 steps and more, in two folders."""
    folder = tmp_path / "songs"
    for number in range(12):
        random_song(folder / "ab"[number % 2] / f"{number:02}.mid", 64 + 8 * number, seed=number)
    return folder


@pytest.fixture
def module(songs: Path, tmp_path: Path) -> Callable[..., PianoRollDataModule]:
    """Makes a data module over `songs`, unless told otherwise, with small windows and a cache of its own."""

    def make(**options: Any) -> PianoRollDataModule:
        defaults = {"window": 16, "batch_size": 4, "cache_dir": str(tmp_path / "cache")}
        if "source" not in options:
            defaults["folder"] = str(songs)
            defaults["split_files"] = {"train": ["*/0[0-7].mid"], "val": ["*/0[89].mid"], "test": ["*/1*.mid"]}
        return PianoRollDataModule(**{**defaults, **options})

    return make
