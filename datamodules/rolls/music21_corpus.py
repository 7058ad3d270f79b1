"""`Music21Corpus`: the scores that music21 ships, from engraved music to rolls; `BachChorales` are those of Bach.

What is done with what a roll cannot hold:

- **Pieces** of ``bach`` are the 371 chorales of Riemenschneider's edition, which are 350 scores (some numbers repeat
  one). Other collections are all their files of scores, and all tunes in files that hold several.
- **Voices**: all parts of a score. Where instruments double or decorate the choir of a chorale, the parts called
  soprano, alto, tenor and bass; ``bwv27.6`` has two sopranos and keeps both. Chord names above a tune are not played.
- **Pitch**: as it sounds. A part for a transposing instrument raises.
- **Bars**: a pickup bar is filled up with silence in front, so that step 0 is a bar line: full bars start at multiples
  of 16 sixteenths in 4/4 and of 12 in 3/4 (one chorale in ten). Silence at the end of the score stays.
- **Repeats** are not expanded: what is repeated is heard once, so no window is a copy of another.
- **Ties** make one note, **grace notes** are dropped, fermatas change nothing.
- **Unisons**: where two voices share a pitch, it sounds as long as either holds it, and starts again when either
  strikes it.
- Onsets off the grid (a few 32nd notes, on sixteenths) move to the nearest step, halves up, as in `music.read_midi`.

Velocities are `RollFormat.velocity`. The JSB data sets hold many of the same chorales: do not score a model on JSB that
was trained on them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.rolls.source import RollSource
from litscale.music.meter import longest_lasting
from litscale.music.notes import NOTE, paint
from litscale.music.roll import Roll, RollFormat

VOICES = ("soprano", "alto", "tenor", "bass")
MOST_VOICES = len(VOICES)  # of a chorale; where there are more parts, some are instruments
SUFFIXES = (".mxl", ".xml", ".musicxml", ".krn", ".abc")  # the better engraving first
SAME_TIME = 1e-6  # quarter notes; triplets are no exact floats


class Music21Corpus(RollSource):
    """Collections of music21's corpus, which is installed with it; each is a class.

    Args:
        collections: names of the corpus' folders, such as bach, palestrina, essenFolksong, oneills1850, ryansMammoth.

    Raises:
        ValueError: there is no such collection, or none is given.
    """

    items = "scores"

    def __init__(self, collections: list[str]) -> None:
        unknown = sorted(name for name in set(collections) if not _has_scores(name))
        if unknown or not collections:
            known = ", ".join(sorted(path.name for path in _root().iterdir() if _has_scores(path.name)))
            given = f"music21 has no {', '.join(unknown)}" if unknown else "none is given"
            raise ValueError(f"source.collections: {given}; there are {known}")
        self.collections = sorted(set(collections))

    def names(self) -> list[str]:
        """Return the pieces, such as ``bach/bwv269``, ``palestrina/Agnus`` or ``essenFolksong/altdeu10/17``."""
        pieces = (chorale_files() if collection == "bach" else _pieces(collection) for collection in self.collections)
        return [name for names in pieces for name in names]

    def read(self, name: str, form: RollFormat) -> Roll:
        """Read a piece.

        Raises:
            ValueError: it is damaged, or has a part for a transposing instrument.
        """
        return read_chorale(name, form) if name.startswith("bach/") else _read_piece(name, form)

    def fingerprint(self) -> str:
        """Return the version of music21, which stands for its scores, and the collections."""
        return f"music21 {version('music21')} {self.collections}"

    def classes(self, names: Sequence[str]) -> list[str] | None:
        """Return the collection of each piece."""
        return [name.split("/")[0] for name in names]


class BachChorales(Music21Corpus):
    """The 350 chorales, read once, in about 15 s; they have no classes."""

    items = "chorales"

    def __init__(self) -> None:
        super().__init__(["bach"])

    def classes(self, names: Sequence[str]) -> None:
        """Return None: the chorales have no classes."""
        return None


@cache
def chorale_files() -> dict[str, Path]:
    """List the chorales of music21's corpus.

    Returns:
        Name (``bach/bwv269``) -> score file, sorted by name.
    """
    from music21.corpus import chorales

    names = chorales.Iterator(numberingSystem="riemenschneider", returnType="filename")
    return {name: _score_file(name) for name in sorted(set(names))}


def read_chorale(name: str, form: RollFormat) -> Roll:
    """Read one chorale onto the beat grid.

    Args:
        name: a key of `chorale_files`.
        form: encoding, steps per beat and velocity bins; all 128 pitches.

    Returns:
        A roll ``[128, step]``, with the meter that most of it is in.

    Raises:
        KeyError: there is no such chorale.
        ValueError: a voice is written for a transposing instrument.
    """
    return _roll(chorale_files()[name], None, name, form, MOST_VOICES)


def _has_scores(collection: str) -> bool:
    """Return whether the corpus has such a folder with scores."""
    return "/" not in collection and any(path.suffix in SUFFIXES for path in (_root() / collection).rglob("*"))


@cache
def _pieces(collection: str) -> dict[str, tuple[Path, int | None]]:
    """Return name -> file and, where it holds several tunes, the tune's number from 1 on; sorted by file."""
    files: dict[str, Path] = {}
    for path in (_root() / collection).rglob("*"):
        if path.suffix in SUFFIXES:
            name = path.relative_to(_root()).with_suffix("").as_posix()
            files[name] = min(path, files.get(name, path), key=lambda each: SUFFIXES.index(each.suffix))
    pieces: dict[str, tuple[Path, int | None]] = {}
    for name, path in sorted(files.items()):
        tunes = len(_tunes(path)) if path.suffix == ".abc" else 1
        pieces |= {f"{name}/{k}": (path, k) for k in range(1, tunes + 1)} if tunes > 1 else {name: (path, None)}
    return pieces


def _root() -> Path:
    """Return the folder of the corpus without importing music21, which takes seconds."""
    spec = find_spec("music21")
    return Path(str(spec and spec.origin)).parent / "corpus"


def _tunes(path: Path) -> list[str]:
    """Split a file in ABC notation into its tunes, each of which begins with a line ``X:``."""
    return re.split(r"(?m)^(?=X:)", path.read_text(encoding="utf-8", errors="replace"))[1:]


def _read_piece(name: str, form: RollFormat) -> Roll:
    """Read a piece that is no chorale; raises ValueError for any error of music21."""
    path, number = _pieces(name.split("/")[0])[name]
    try:
        return _roll(path, number, name, form)
    except Exception as error:  # its parsers raise errors of all kinds for scores that they do not understand
        raise ValueError(f"{name}: {error}" if name not in str(error) else str(error)) from error


def _roll(path: Path, number: int | None, name: str, form: RollFormat, most_parts: int | None = None) -> Roll:
    """Convert a score to a roll; if it has more than ``most_parts`` parts, only those that are sung are kept."""
    from music21 import converter, stream
    from music21.instrument import Instrument
    from music21.meter import TimeSignature

    # 1. the parts
    parsed = path if number is None else _tunes(path)[number - 1]
    score: Any = converter.parse(parsed, format=None if number is None else "abc", forceSource=True)
    parts = list(score.parts)
    if most_parts is not None and len(parts) > most_parts:
        parts = [part for part in parts if str(part.partName).lower().startswith(VOICES)]
    if any(instrument.transposition for part in parts for instrument in part[Instrument]):
        raise ValueError(f"{name}: a voice is written for a transposing instrument")
    sung = [note for part in parts for note in _sung(part)]
    if not sung:
        raise ValueError(f"{name}: no notes")
    # 2. onto the grid, from a bar line on
    measure = parts[0].getElementsByClass(stream.Measure).first()
    silence = 0.0 if measure is None else measure.paddingLeft
    per_beat = form.steps_per_beat
    quarters = np.array([(start + silence, end + silence) for _, start, end in sung], dtype=float)
    steps = np.floor(quarters * per_beat + 0.5).astype(np.int64)  # [note, (start, end)]
    played = np.empty(len(sung), NOTE)
    played["pitch"] = [pitch for pitch, _, _ in sung]
    played["start"], played["end"] = steps[:, 0], np.maximum(steps[:, 1], steps[:, 0] + 1)
    played["velocity"] = form.velocity
    # 3. the meter
    length = int((float(score.highestTime) + silence) * per_beat + 0.5)
    changes = [(float(m.offset), m.numerator, m.denominator) for m in parts[0].flatten()[TimeSignature]]
    meter = longest_lasting(changes, float(score.highestTime))
    return paint(_held_by_either(played), form.with_meter(meter), max(length, int(played["end"].max())))


def _score_file(name: str) -> Path:
    """Return the file of exactly this work; music21's own choice for ``bwv69.6`` is another piece, ``bwv69.6-a``."""
    from music21 import corpus

    works = corpus.getWork(name)
    candidates = [Path(path) for path in (works if isinstance(works, list) else [works])]
    # One name of the list, bwv18.5-l, is short for its file's.
    exact = [path for path in candidates if path.stem == Path(name).name] or candidates
    return min(exact, key=lambda path: SUFFIXES.index(path.suffix))


def _sung(part: Any) -> list[tuple[int, float, float]]:
    """Return MIDI pitch, start and end (quarter notes) of a part's notes; ties are merged, grace notes left out."""
    from music21.harmony import Harmony

    result: list[tuple[int, float, float]] = []
    tied: dict[int, int] = {}  # pitch -> index of the note that is tied over to the next one
    for element in part.flatten().notes:
        if element.duration.isGrace or isinstance(element, Harmony) or not (element.isNote or element.isChord):
            continue
        start = float(element.offset)
        end = start + float(element.quarterLength)
        for note in element.notes if element.isChord else (element,):
            pitch, tie = note.pitch.midi, note.tie.type if note.tie else None
            earlier = tied.pop(pitch, None)
            if earlier is not None and tie in ("stop", "continue") and abs(result[earlier][2] - start) < SAME_TIME:
                result[earlier] = (pitch, result[earlier][1], end)
                index = earlier
            else:
                result.append((pitch, start, end))
                index = len(result) - 1
            if tie in ("start", "continue"):
                tied[pitch] = index
    return result


def _held_by_either(played: np.ndarray) -> np.ndarray:
    """Make notes last as long as a longer note of another voice that holds their pitch when they are struck."""
    played = played[np.lexsort((played["start"], played["pitch"]))]
    for pitch in np.unique(played["pitch"]):
        same = played["pitch"] == pitch
        played["end"][same] = np.maximum.accumulate(played["end"][same])
    return played
