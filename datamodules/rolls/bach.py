"""`BachChorales`: the chorales that music21 ships, from engraved scores to rolls.

What is done with what a roll cannot hold:

- **Pieces**: the 371 chorales of Riemenschneider's edition, which are 350 scores (some numbers repeat one).
- **Voices**: all parts of a four-part score. Where instruments double or decorate the choir, the parts called soprano,
  alto, tenor and bass; ``bwv27.6`` has two sopranos and keeps both.
- **Pitch**: as it sounds. None of these voices is written for a transposing instrument; one that is raises.
- **Bars**: a pickup bar is filled up with silence in front, so that step 0 is a bar line: full bars start at multiples
  of 16 sixteenths in 4/4 and of 12 in 3/4 (one piece in ten). Silence at the end of the score stays.
- **Repeats** are not expanded: what is repeated is heard once, so no window is a copy of another.
- **Ties** make one note, **grace notes** are dropped, fermatas change nothing.
- **Unisons**: where two voices share a pitch, it sounds as long as either holds it, and starts again when either
  strikes it.
- Onsets off the grid (a few 32nd notes, on sixteenths) move to the nearest step, halves up, as in `music.read_midi`.

Velocities are `RollFormat.velocity`. The JSB data sets hold many of the same chorales: do not score a model on JSB that
was trained on this corpus.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.rolls.source import RollSource
from litscale.music.meter import longest_lasting
from litscale.music.notes import NOTE, paint
from litscale.music.roll import Roll, RollFormat

VOICES = ("soprano", "alto", "tenor", "bass")
SUFFIXES = (".mxl", ".xml", ".krn")  # the better engraving first
SAME_TIME = 1e-6  # quarter notes; triplets are no exact floats


class BachChorales(RollSource):
    """The 350 chorales, read once, in about 15 s."""

    items = "chorales"

    def names(self) -> list[str]:
        """The chorales, such as ``bach/bwv269``."""
        return list(chorale_files())

    def read(self, name: str, form: RollFormat) -> Roll:
        """A chorale; raises as `read_chorale` does."""
        return read_chorale(name, form)

    def fingerprint(self) -> str:
        """The version of music21, which stands for its scores."""
        return f"music21 {version('music21')}"


@cache
def chorale_files() -> dict[str, Path]:
    """The chorales of music21's corpus.

    Returns:
        Name (``bach/bwv269``) -> score file, sorted by name.
    """
    from music21.corpus import chorales

    names = chorales.Iterator(numberingSystem="riemenschneider", returnType="filename")
    return {name: _score_file(name) for name in sorted(set(names))}


def read_chorale(name: str, form: RollFormat) -> Roll:
    """One chorale on the beat grid.

    Args:
        name: a key of `chorale_files`.
        form: encoding, steps per beat and velocity bins; all 128 pitches.

    Returns:
        A roll ``[128, step]``, with the meter that most of it is in.

    Raises:
        KeyError: there is no such chorale.
        ValueError: a voice is written for a transposing instrument.
    """
    from music21 import converter, stream
    from music21.instrument import Instrument
    from music21.meter import TimeSignature

    score: Any = converter.parse(chorale_files()[name], forceSource=True)
    parts = list(score.parts)
    if len(parts) > len(VOICES):
        parts = [part for part in parts if str(part.partName).lower().startswith(VOICES)]
    if any(instrument.transposition for part in parts for instrument in part[Instrument]):
        raise ValueError(f"{name}: a voice is written for a transposing instrument")
    silence = parts[0].getElementsByClass(stream.Measure).first().paddingLeft
    per_beat = form.steps_per_beat

    sung = [note for part in parts for note in _sung(part)]
    quarters = np.array([(start + silence, end + silence) for _, start, end in sung], dtype=float)
    steps = np.floor(quarters * per_beat + 0.5).astype(np.int64)  # [note, (start, end)]
    played = np.empty(len(sung), NOTE)
    played["pitch"] = [pitch for pitch, _, _ in sung]
    played["start"], played["end"] = steps[:, 0], np.maximum(steps[:, 1], steps[:, 0] + 1)
    played["velocity"] = form.velocity
    length = int((float(score.highestTime) + silence) * per_beat + 0.5)
    changes = [(float(m.offset), m.numerator, m.denominator) for m in parts[0].flatten()[TimeSignature]]
    meter = longest_lasting(changes, float(score.highestTime))
    return paint(_held_by_either(played), form.with_meter(meter), max(length, int(played["end"].max())))


def _score_file(name: str) -> Path:
    """The file of exactly this work; music21's own choice for ``bwv69.6`` is another piece, ``bwv69.6-a``."""
    from music21 import corpus

    works = corpus.getWork(name)
    candidates = [Path(path) for path in (works if isinstance(works, list) else [works])]
    # One name of the list, bwv18.5-l, is short for its file's.
    exact = [path for path in candidates if path.stem == Path(name).name] or candidates
    return min(exact, key=lambda path: SUFFIXES.index(path.suffix))


def _sung(part: Any) -> list[tuple[int, float, float]]:
    """MIDI pitch, start and end in quarter notes of each note of a part, ties merged, grace notes left out."""
    result: list[tuple[int, float, float]] = []
    tied: dict[int, int] = {}  # pitch -> index of the note that is tied over to the next one
    for element in part.flatten().notes:
        if element.duration.isGrace:
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
    """Notes struck while another voice holds their pitch last as long as that one, if it is the longer."""
    played = played[np.lexsort((played["start"], played["pitch"]))]
    for pitch in np.unique(played["pitch"]):
        same = played["pitch"] == pitch
        played["end"][same] = np.maximum.accumulate(played["end"][same])
    return played
