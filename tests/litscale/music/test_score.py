"""Engraved scores: the notation read back is the roll."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from music21 import converter, pitch

from litscale.music import Roll, RollFormat, write_score
from litscale.music import score as engraving

FOUR_VOICES = RollFormat("binary", lowest_pitch=48, pitches=24)


@pytest.fixture
def roll() -> Roll:
    """Notes that begin and end one by one on both sides of middle C, over two bars and a half."""
    symbols = np.zeros((24, 40), np.uint8)
    for midi, start, end in ((60, 0, 8), (64, 4, 20), (59, 0, 16), (52, 3, 5), (67, 20, 40), (50, 30, 33)):
        symbols[midi - 48, start:end] = 1
    return Roll(symbols, FOUR_VOICES)


def test_the_notation_says_what_the_roll_says(roll: Roll) -> None:
    score = converter.parseData(engraving._music_xml(roll), format="musicxml")
    heard: list[tuple[int, float, float]] = []  # pitch, start, end in quarter notes
    for chord in score.recurse().notes:
        start = float(chord.getOffsetInHierarchy(score))
        for note in chord.notes if chord.isChord else [chord]:
            begun = start
            if note.tie is not None and note.tie.type != "start":  # goes on from one that ended here
                (before,) = [one for one in heard if one[0] == note.pitch.midi and one[2] == start]
                heard.remove(before)
                begun = before[1]
            heard.append((note.pitch.midi, begun, start + float(chord.quarterLength)))
    expected = [(60, 0, 2), (64, 1, 5), (59, 0, 4), (52, 0.75, 1.25), (67, 5, 10), (50, 7.5, 8.25)]
    assert sorted(heard) == sorted(expected)


def test_the_lowest_pitches_are_as_low_in_the_notation() -> None:
    symbols = np.zeros((128, 12), np.uint8)
    symbols[np.arange(12), np.arange(12)] = 1
    score = converter.parseData(engraving._music_xml(Roll(symbols, RollFormat("binary"))), format="musicxml")
    assert [each.midi for each in score.pitches] == list(range(12))


def test_staves_bars_and_key(roll: Roll, tmp_path: Path) -> None:
    in_three = Roll(roll.symbols, FOUR_VOICES.with_meter(3.0))
    score = converter.parseData(engraving._music_xml(in_three), format="musicxml")
    upper, lower = score.parts
    assert min(each.midi for each in upper.pitches) == 60
    assert max(each.midi for each in lower.pitches) == 59
    assert [len(part.getElementsByClass("Measure")) for part in score.parts] == [4, 4]
    assert {sign.ratioString for sign in score.recurse().getElementsByClass("TimeSignature")} == {"3/4"}


def test_flat_keys_are_spelt_with_flats() -> None:
    symbols = np.zeros((24, 16), np.uint8)
    for step, midi in enumerate((53, 57, 60, 58, 65, 53, 57, 60, 58, 62, 65, 53, 57, 60, 65, 53)):
        symbols[midi - 48, step] = 1
    score = converter.parseData(engraving._music_xml(Roll(symbols, FOUR_VOICES)), format="musicxml")
    assert {sign.sharps for sign in score.recurse().getElementsByClass("KeySignature")} == {-1}
    assert {each.name for each in score.pitches if each.midi == 58} == {"B-"}


@pytest.mark.parametrize(
    ("sharps", "names"),
    [
        (0, "C C# D E- E F F# G G# A B- B"),
        (3, "C C# D D# E E# F# G G# A A# B"),  # E sharp leads to F sharp minor
        (-1, "C C# D E- E F F# G A- A B- B"),  # C sharp leads to D minor
        (-7, "C D- E-- E- F- F G- G A- B-- B- C-"),
    ],
)
def test_pitches_are_spelt_as_the_key_has_them(sharps: int, names: str) -> None:
    assert " ".join(engraving.spelt(60 + number, sharps)[0] for number in range(12)) == names


@pytest.mark.parametrize("sharps", range(-7, 8))
def test_spelling_keeps_the_pitch(sharps: int) -> None:
    for midi in range(12, 128):
        name, octave = engraving.spelt(midi, sharps)
        assert pitch.Pitch(name, octave=octave).midi == midi


def test_the_picture_has_every_note(roll: Roll, tmp_path: Path) -> None:
    path = write_score(roll, tmp_path / "a.svg")
    root = ElementTree.parse(path).getroot()
    notes = [part for part in root.iter() if part.get("class") == "note"]
    segments = sum(len(set(np.flatnonzero(np.diff(row)) + 1)) // 2 for row in np.pad(roll.symbols, ((0, 0), (1, 1))))
    assert len(notes) >= segments == 6


def test_the_same_roll_gives_the_same_file(roll: Roll, tmp_path: Path) -> None:
    first, second = (write_score(roll, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second


@pytest.mark.parametrize("steps", [0, 5])
def test_silence(steps: int, tmp_path: Path) -> None:
    silent = Roll(np.zeros((24, steps), np.uint8), FOUR_VOICES)
    root = ElementTree.parse(write_score(silent, tmp_path / "a.svg")).getroot()
    assert not [part for part in root.iter() if part.get("class") == "note"]


def test_what_cannot_be_engraved(roll: Roll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Roll(roll.symbols, FOUR_VOICES.with_meter(3.3))
    with pytest.raises(ValueError, match=r"bars of 3\.3 quarter notes have no time signature"):
        write_score(odd, tmp_path / "a.svg")
    monkeypatch.setitem(engraving.ENGRAVING, "pageHeight", 300)
    with pytest.raises(ValueError, match="a piece of 640 steps is too long for a score of one page"):
        write_score(Roll(np.tile(roll.symbols, 16), FOUR_VOICES), tmp_path / "a.svg")
    monkeypatch.setitem(sys.modules, "verovio", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'verovio>=5'"):
        write_score(roll, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
