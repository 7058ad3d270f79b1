"""MIDI <-> rolls, as files and as `pretty_midi.PrettyMIDI` objects.

Time is read in ticks of the beat, never in seconds, so tempo changes do not disturb the grid. Files that this
module writes end with a lyric event ``litscale end`` at the right edge of the roll (a lyric, because symusic
and pretty_midi both keep lyrics): it carries silence after the last note, and says that the notes lie on the
grid.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import symusic

from litscale.storage.files import write_atomically
from music.notes import NOTE, notes, paint
from music.phase import estimate_phase, wrap
from music.roll import Roll, RollFormat

END = "litscale end"
TICKS_PER_QUARTER = 480
LONGEST = 2**20  # steps; damaged files can claim times that would fill the memory
LONGEST_QUARTER = 2**24 - 1  # microseconds; the tempo event has three bytes


class MidiError(ValueError):
    """A MIDI file that cannot become a roll; the message names the file and the reason."""


def read_midi(
    path: str | Path,
    encoding: str = "onset_hold",
    steps_per_beat: int = 4,
    phase: str | float = "auto",
    *,
    velocity_bins: int = 127,
    drums: bool = False,
    longest: int = LONGEST,
) -> Roll:
    """Read a MIDI file onto the beat grid.

    All tracks are merged and program changes ignored. An onset moves to the nearest step (halves up), and so
    does an end, at least one step later: a note of no length becomes one step. Leading silence stays. A later
    onset on a sounding pitch ends the note before it; of notes with one pitch and onset the loudest stays,
    then the longest.

    Args:
        path: a standard MIDI file.
        encoding: ``binary``, ``velocity`` or ``onset_hold``; see `RollFormat`.
        steps_per_beat: grid steps per quarter note.
        phase: where the grid lies against tick 0, in steps, modulo one and wrapped to (-0.5, 0.5]. ``auto``
            estimates it with `estimate_phase`; it is 0 for files written by `write_midi`, and for any file on
            the grid.
        velocity_bins: number of velocity bins, 1..127.
        drums: also read channel 10, as pitches.
        longest: steps that a file may have; a file of 40 bytes can claim times that would fill the memory.

    Returns:
        A roll over all 128 pitches, ``[128, step]``, that ends with its last note, or where `write_midi`
        ended it; ``format.tempo`` is the first tempo of the file, 120 if it states none.

    Raises:
        FileNotFoundError: there is no such file.
        MidiError: the file is damaged, cut short, no MIDI file, in SMPTE time, longer than ``longest`` steps, or has
            no notes (a silent roll written by `write_midi` is read back as such).
        ValueError: an argument is not one of those above.
    """
    form = RollFormat(encoding, steps_per_beat, velocity_bins)
    data = Path(path).read_bytes()
    _check_chunks(data, path)
    try:
        score: Any = symusic.Score.from_midi(data)  # symusic's stubs leave its classes empty
    except (RuntimeError, ValueError) as error:
        raise MidiError(f"{path}: damaged MIDI file ({error})") from error
    tracks = [track.notes.numpy() for track in score.tracks if drums or not track.is_drum]
    ticks = np.concatenate([_note_ticks(**track) for track in tracks] or [np.empty(0, NOTE)])
    ends = [event.time for track in score.tracks for event in track.lyrics if event.text == END]
    tempo = min(score.tempos, key=lambda event: event.time).qpm if score.tempos else form.tempo
    return _to_roll(ticks, ends, score.ticks_per_quarter, tempo, form, phase, str(path), longest)


def from_pretty_midi(
    midi: pretty_midi.PrettyMIDI,
    encoding: str = "onset_hold",
    steps_per_beat: int = 4,
    phase: str | float = "auto",
    *,
    velocity_bins: int = 127,
    drums: bool = False,
) -> Roll:
    """The roll of a `pretty_midi.PrettyMIDI`, by the rules of `read_midi`.

    Args:
        midi: its seconds are turned back into ticks with its own tempo changes.
        encoding: see `read_midi`.
        steps_per_beat: see `read_midi`.
        phase: see `read_midi`.
        velocity_bins: see `read_midi`.
        drums: see `read_midi`.

    Returns:
        A roll over all 128 pitches, ``[128, step]``.

    Raises:
        MidiError: no notes, or longer than 2^20 steps.
        ValueError: an argument is not one of those of `read_midi`.
    """
    form = RollFormat(encoding, steps_per_beat, velocity_bins)
    played = [note for track in midi.instruments if drums or not track.is_drum for note in track.notes]
    tick = midi.time_to_tick
    ticks = np.array([(note.pitch, tick(note.start), tick(note.end), note.velocity) for note in played], NOTE)
    ends = [tick(event.time) for event in midi.lyrics if event.text == END]
    tempo = float(midi.get_tempo_changes()[1][0])
    return _to_roll(ticks, ends, midi.resolution, tempo, form, phase, "PrettyMIDI object")


def to_pretty_midi(roll: Roll) -> pretty_midi.PrettyMIDI:
    """The notes of a roll as a `pretty_midi.PrettyMIDI` with one piano, at ``roll.format.tempo``.

    Args:
        roll: any roll; its notes are those of `music.notes`.

    Returns:
        An object that `from_pretty_midi` turns back into the roll, as `write_midi` and `read_midi` do.
    """
    ticks_per_step = _ticks_per_step(roll.format)
    resolution = ticks_per_step * roll.format.steps_per_beat
    midi = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=roll.format.tempo)
    seconds = 60 / roll.format.tempo / roll.format.steps_per_beat
    piano = pretty_midi.Instrument(program=0)
    piano.notes = [
        pretty_midi.Note(int(velocity), int(pitch), float(start * seconds), float(end * seconds))
        for pitch, start, end, velocity in notes(roll)
    ]
    midi.instruments.append(piano)
    midi.lyrics.append(pretty_midi.Lyric(END, roll.steps * seconds))
    return midi


def write_midi(roll: Roll, path: str | Path) -> Path:
    """Write the notes of a roll as a MIDI file with one piano track.

    ``read_midi(write_midi(roll, path), ...)`` with the format's encoding, grid and bins gives the same
    symbols back, silence at the end included, for rolls over 128 pitches that are canonical (see
    `music.repair`). Velocities are the middles of their bins; tempos are kept to a microsecond per quarter
    note.

    Args:
        roll: any roll, silent or without columns too.
        path: where the file goes; it is there whole, or not at all.

    Returns:
        The path written.

    Raises:
        OSError: the file could not be written; the error names it.
        ValueError: the tempo is too slow for MIDI (below 3.6 quarter notes per minute).
    """
    microseconds = round(60e6 / roll.format.tempo)
    if not 1 <= microseconds <= LONGEST_QUARTER:
        raise ValueError(f"MIDI cannot hold a tempo of {roll.format.tempo} quarter notes per minute")
    ticks_per_step = _ticks_per_step(roll.format)
    score: Any = symusic.Score(ticks_per_step * roll.format.steps_per_beat)
    score.tempos.append(symusic.Tempo(0, mspq=microseconds))
    track: Any = symusic.Track(name="litscale")
    for pitch, start, end, velocity in notes(roll).tolist():
        track.notes.append(symusic.Note(start * ticks_per_step, (end - start) * ticks_per_step, pitch, velocity))
    track.lyrics.append(symusic.TextMeta(roll.steps * ticks_per_step, END))
    score.tracks.append(track)
    return write_atomically(path, score.dumps_midi())


def _ticks_per_step(form: RollFormat) -> int:
    """Whole ticks per step, near the usual 480 per quarter note."""
    return max(1, TICKS_PER_QUARTER // form.steps_per_beat)


def _note_ticks(time: np.ndarray, duration: np.ndarray, pitch: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """symusic's columns as `NOTE`, with ticks for steps."""
    result = np.empty(len(time), NOTE)
    result["pitch"], result["velocity"] = pitch, velocity
    result["start"], result["end"] = time, time.astype(np.int64) + duration
    return result


def _check_chunks(data: bytes, path: str | Path) -> None:
    """What symusic passes over: a file cut between two tracks, and time that is not counted in beats."""
    if len(data) < 14 or data[:4] != b"MThd":
        raise MidiError(f"{path}: not a MIDI file ({len(data)} bytes, no MThd header)")
    promised, division = int.from_bytes(data[10:12]), int.from_bytes(data[12:14])
    if division == 0 or division & 0x8000:
        raise MidiError(f"{path}: time is not counted in ticks per quarter note")
    position, found = 8 + int.from_bytes(data[4:8]), 0
    while position + 8 <= len(data):
        found += data[position : position + 4] == b"MTrk"
        position += 8 + int.from_bytes(data[position + 4 : position + 8])
    if found < promised:
        raise MidiError(f"{path}: cut short ({found} of {promised} tracks)")
    if position > len(data):
        raise MidiError(f"{path}: cut short (the last track lacks {position - len(data)} bytes)")


def _to_roll(
    ticks: np.ndarray,
    ends: list[int],
    ticks_per_quarter: int,
    tempo: float,
    form: RollFormat,
    phase: str | float,
    name: str,
    longest: int = LONGEST,
) -> Roll:
    """Notes in ticks -> roll; ``ends`` holds the ticks of the end events, ``name`` goes into errors."""
    if phase != "auto" and (isinstance(phase, str) or not math.isfinite(phase)):
        raise ValueError(f"phase must be 'auto' or a number of steps, not {phase!r}")
    if not len(ticks) and not ends:
        raise MidiError(f"{name}: no notes")
    pitch, velocity = ticks["pitch"], ticks["velocity"]
    if len(ticks) and (ticks["start"].min() < 0 or pitch.min() < 0 or pitch.max() > 127 or velocity.max() > 127):
        raise MidiError(f"{name}: damaged MIDI file (notes outside of the ranges of MIDI)")
    ticks_per_step = ticks_per_quarter / form.steps_per_beat
    if isinstance(phase, str):
        phase = 0.0 if ends else estimate_phase(ticks["start"] / ticks_per_step)
    shift = 0.5 - wrap(float(phase))
    played = ticks.copy()
    played["velocity"] = np.maximum(velocity, 1)
    played["start"] = np.floor(ticks["start"] / ticks_per_step + shift)
    played["end"] = np.maximum(np.floor(ticks["end"] / ticks_per_step + shift), played["start"] + 1)
    edges = np.floor(np.array(ends) / ticks_per_step + shift)
    steps = int(max(played["end"].max(initial=0), edges.max(initial=0)))
    if steps > longest:
        raise MidiError(f"{name}: {steps} steps are more than {longest}")
    placed = RollFormat(form.encoding, form.steps_per_beat, form.velocity_bins, tempo=float(tempo))
    return paint(played, placed, steps)
