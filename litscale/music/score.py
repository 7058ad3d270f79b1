"""Rolls as engraved scores: music21 writes the notation, verovio engraves it.

Both are imported when a score is drawn: the first takes seconds to import, the second is an optional package.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from litscale.music.meter import signature
from litscale.music.notes import notes
from litscale.music.roll import Roll
from litscale.storage.files import write_atomically

MIDDLE_C = 60  # the lowest pitch of the upper staff
FIFTHS = "FCGDAEB"  # letters by ascending fifths
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ENGRAVING = {
    "pageWidth": 2100,
    "adjustPageHeight": True,
    "pageHeight": 60000,  # verovio's largest, as there is one page
    "scale": 40,
    "header": "none",
    "footer": "none",
    "svgViewBox": True,  # so that browsers fit it to the page
    "xmlIdSeed": 1,  # names of elements are drawn at random: the same piece gives the same file
}


def write_score(roll: Roll, path: str | Path) -> Path:
    """Engrave a roll on two staves, as a piano reduction, and write it as SVG.

    Notes from middle C on are on the upper staff. In each staff, notes that sound together are one chord; a note that
    sounds on while others change is tied. Step 0 is the first beat of the first bar, bars have the length of the
    format, and the key signature is that of the key which music21 finds (Krumhansl and Schmuckler's algorithm); nothing
    else of the notation is in a roll.

    Args:
        roll: Any roll; velocities are not shown.
        path: Where the SVG goes. It appears when it is complete.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: verovio is not installed; the message says how it is.
        ValueError: Bars of the format have no time signature, or the piece is too long for one page.
        OSError: The file could not be written.
    """
    engraver = new_engraver()
    engraver.loadData(_music_xml(roll))
    if engraver.getPageCount() != 1:
        raise ValueError(f"{path}: a piece of {roll.steps} steps is too long for a score of one page")
    return write_atomically(path, engraver.renderToSVG(1).encode())


def new_engraver() -> Any:
    """Return verovio's toolkit with our options.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how it is.
    """
    try:
        import verovio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scores need another package: pip install 'verovio>=5' (or litscale[score])"
        ) from error
    verovio.enableLog(verovio.LOG_ERROR)
    engraver = verovio.toolkit()
    engraver.setOptions(ENGRAVING)
    return engraver


def _music_xml(roll: Roll) -> str:
    """Return the notation of a roll as MusicXML; raises ValueError if its bars have no time signature."""
    from music21 import clef, key, layout, meter, stream
    from music21.musicxml.m21ToXml import GeneralObjectExporter

    bar = signature(roll.format.beats_per_bar)
    if bar is None:
        raise ValueError(f"bars of {roll.format.beats_per_bar} quarter notes have no time signature")
    # 1. chords and rests, staff by staff
    played = notes(roll)
    upper = played["pitch"] >= MIDDLE_C
    staves = [_staff(played[upper], roll), _staff(played[~upper], roll)]
    score = stream.Score(staves)
    # 2. the key, which decides how pitches are spelt
    sharps = score.analyze("key").sharps if len(played) else 0
    for pitch in score.pitches:
        name, octave = spelt(pitch.midi, sharps)
        pitch.name, pitch.octave = name, octave
    # 3. what stands at the beginning of each staff, bars and beams
    for staff, sign in zip(staves, (clef.TrebleClef(), clef.BassClef()), strict=True):
        for opening in (sign, key.KeySignature(sharps), meter.TimeSignature(f"{bar[0]}/{bar[1]}")):
            staff.insert(0, opening)
        staff.makeNotation(inPlace=True)
    score.insert(0, layout.StaffGroup(staves, symbol="brace"))
    return GeneralObjectExporter(score).parse().decode()


def spelt(pitch: int, sharps: int) -> tuple[str, int]:
    """Spell a pitch as the key has it.

    The twelve names are neighbours on the line of fifths, from the lowered third of the major key (E flat in C major)
    to its raised fifth (G sharp, the leading tone of A minor).

    Args:
        pitch: A MIDI pitch.
        sharps: Sharps of the key signature; flats are negative.

    Returns:
        The name with music21's accidentals (``#`` and ``-``), and the octave in which notes of that name are written.
    """
    lowest = sharps - 3
    fifths = lowest + (7 * pitch - lowest) % 12  # C is 0, G is 1
    alteration, letter = divmod(fifths + 1, 7)
    name = FIFTHS[letter]
    octave = (pitch - alteration - SEMITONES[name]) // 12 - 1
    return name + ("#" * alteration if alteration > 0 else "-" * -alteration), octave


def _staff(played: np.ndarray, roll: Roll) -> Any:
    """Convert notes to a music21 part of the roll's length: a chord or a rest from each change to the next."""
    from music21 import chord, note, stream, tie

    part = stream.Part()
    changes = sorted({0, roll.steps, *played["start"].tolist(), *played["end"].tolist()})
    for start, end in pairwise(changes):
        there = played[(played["start"] <= start) & (played["end"] >= end)]
        sounding = []
        for pitch, begins, ends in there[["pitch", "start", "end"]].tolist():
            one = note.Note()
            one.pitch.ps = pitch  # given to the constructor, numbers below 12 are pitch classes
            if begins < start or ends > end:
                one.tie = tie.Tie("start" if begins == start else "stop" if ends == end else "continue")
            sounding.append(one)
        element = note.Rest() if not sounding else sounding[0] if len(sounding) == 1 else chord.Chord(sounding)
        element.quarterLength = (end - start) / roll.format.steps_per_beat
        part.append(element)
    return part
