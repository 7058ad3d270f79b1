"""MIDI <-> rolls, as files and as `pretty_midi.PrettyMIDI` objects.

Time is read in ticks of the beat, never in seconds, so tempo changes do not disturb the grid. Files that this
module writes end with a lyric event ``litscale end`` at the right edge of the roll (a lyric, because pretty_midi
keeps lyrics): it carries silence after the last note, and says that the notes lie on the grid.
"""

from __future__ import annotations

import math
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pretty_midi

from litscale.music.meter import longest_lasting, signature
from litscale.music.midi_events import DRUMS, SUSTAIN, MidiError, MidiEvents, file_bytes, read_events
from litscale.music.notes import NOTE, notes, paint
from litscale.music.pairing import sustained
from litscale.music.phase import estimate_phase, wrap
from litscale.music.roll import Roll, RollFormat
from litscale.storage.files import write_atomically

END = b"litscale end"
TICKS_PER_QUARTER = 480
LONGEST = 2**20  # steps; damaged files can claim times that would fill the memory
LONGEST_QUARTER = 2**24 - 1  # microseconds; the tempo event has three bytes
MOST_TICKS = 2**15 - 1  # per quarter note; the header has 15 bits for them


def read_midi(
    path: str | Path,
    encoding: str = "onset_hold",
    steps_per_beat: int = 4,
    phase: str | float = "auto",
    *,
    velocity_bins: int = 127,
    drums: bool = False,
    pedal: bool = False,
    beats_per_bar: float | None = None,
    longest: int = LONGEST,
) -> Roll:
    """Read a MIDI file onto the beat grid.

    All tracks are merged and program changes ignored; how strikes and releases make notes, also where releases
    are missing, is said at `litscale.music.pairing`. An onset moves to the nearest step (halves up), and so does an
    end, at least one step later: a note of no length becomes one step. Leading silence stays. A later onset on a
    sounding pitch ends the note before it; of notes with one pitch and onset the loudest stays, then the longest.

    Args:
        path: a standard MIDI file.
        encoding: ``binary``, ``velocity`` or ``onset_hold``; see `RollFormat`.
        steps_per_beat: grid steps per quarter note.
        phase: where the grid lies against tick 0, in steps, modulo one and wrapped to (-0.5, 0.5]. ``auto``
            estimates it with `estimate_phase`; it is 0 for files written by `write_midi`, and for any file on
            the grid.
        velocity_bins: number of velocity bins, 1..127.
        drums: also read channel 10, as pitches.
        pedal: notes that end while the sustain pedal of their channel is down last until it comes up, or their
            pitch is struck again; otherwise pedals are ignored.
        beats_per_bar: quarter notes per bar, 3.5 in 7/8; None takes the time signature that most of the piece is in,
            see `litscale.music.meter.longest_lasting`.
        longest: steps that a file may have; a file of 40 bytes can claim times that would fill the memory.

    Returns:
        A roll over all 128 pitches, ``[128, step]``, that ends with its last note, or where `write_midi`
        ended it; ``format.tempo`` is the first tempo of the file, 120 if it states none (or only 0), and
        ``format.beats_per_bar`` its meter, 4 if it states none.

    Raises:
        FileNotFoundError: there is no such file.
        MidiError: the file is damaged (the error says at which byte), cut short, no MIDI file, in SMPTE time, of
            format 2, longer than ``longest`` steps, or has no notes (a silent roll written by `write_midi` is
            read back as such).
        ValueError: an argument is not one of those above.
    """
    form = RollFormat(encoding, steps_per_beat, velocity_bins)
    events = read_events(Path(path).read_bytes(), str(path))
    if not drums:
        heard = events.channels != DRUMS
        events = replace(events, notes=events.notes[heard], channels=events.channels[heard])
    return _to_roll(
        events, form, phase=phase, pedal=pedal, beats_per_bar=beats_per_bar, name=str(path), longest=longest
    )


def from_pretty_midi(
    midi: pretty_midi.PrettyMIDI,
    encoding: str = "onset_hold",
    steps_per_beat: int = 4,
    phase: str | float = "auto",
    *,
    velocity_bins: int = 127,
    drums: bool = False,
    pedal: bool = False,
    beats_per_bar: float | None = None,
) -> Roll:
    """Convert a `pretty_midi.PrettyMIDI` to a roll, by the rules of `read_midi`.

    Args:
        midi: its seconds are turned back into ticks with its own tempo changes.
        encoding: see `read_midi`.
        steps_per_beat: see `read_midi`.
        phase: see `read_midi`.
        velocity_bins: see `read_midi`.
        drums: see `read_midi`.
        pedal: see `read_midi`; here each instrument has a pedal of its own.
        beats_per_bar: see `read_midi`.

    Returns:
        A roll over all 128 pitches, ``[128, step]``.

    Raises:
        MidiError: no notes, or longer than 2^20 steps.
        ValueError: an argument is not one of those of `read_midi`.
    """
    form = RollFormat(encoding, steps_per_beat, velocity_bins)
    tick = midi.time_to_tick
    parts = list(enumerate(part for part in midi.instruments if drums or not part.is_drum))
    played = [(note.pitch, tick(note.start), tick(note.end), note.velocity) for _, part in parts for note in part.notes]
    moves = [(index, move) for index, part in parts for move in part.control_changes if move.number == SUSTAIN]
    changes = zip(*midi.get_tempo_changes(), strict=True)
    events = MidiEvents(
        ticks_per_quarter=midi.resolution,
        notes=np.array(played, NOTE),
        channels=np.array([index for index, part in parts for _ in part.notes], np.int64),
        pedals=sorted(((tick(move.time), index, move.value >= 64) for index, move in moves), key=itemgetter(0)),
        tempos=[(tick(time), 60e6 / tempo) for time, tempo in changes],
        meters=sorted(
            ((tick(meter.time), meter.numerator, meter.denominator) for meter in midi.time_signature_changes),
            key=itemgetter(0),
        ),
        lyrics=[(tick(event.time), event.text.encode(errors="replace")) for event in midi.lyrics],
    )
    return _to_roll(
        events, form, phase=phase, pedal=pedal, beats_per_bar=beats_per_bar, name="PrettyMIDI object", longest=LONGEST
    )


def to_pretty_midi(roll: Roll) -> pretty_midi.PrettyMIDI:
    """Convert a roll's notes to a `pretty_midi.PrettyMIDI` with one piano, at ``roll.format.tempo``.

    Args:
        roll: any roll; its notes are those of `litscale.music.notes`.

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
    midi.lyrics.append(pretty_midi.Lyric(END.decode(), roll.steps * seconds))
    if meter := signature(roll.format.beats_per_bar):
        midi.time_signature_changes.append(pretty_midi.TimeSignature(*meter, 0))
    return midi


def write_midi(roll: Roll, path: str | Path) -> Path:
    """Write the notes of a roll as a MIDI file with one piano track.

    ``read_midi(write_midi(roll, path), ...)`` with the format's encoding, grid and bins gives the same
    symbols back, silence at the end included, for rolls over 128 pitches that are canonical (see
    `music.repair`). Velocities are the middles of their bins; tempos are kept to a microsecond per quarter
    note. The meter is written as the time signature of its length with the fewest parts (3/4 for 6/8), if MIDI has one.

    Args:
        roll: any roll, silent or without columns too.
        path: where the file goes; it is there whole, or not at all.

    Returns:
        The path written.

    Raises:
        OSError: the file could not be written; the error names it.
        ValueError: the tempo is too slow for MIDI (below 3.6 quarter notes per minute), or a beat has more than
            32767 steps.
    """
    microseconds = round(60e6 / roll.format.tempo)
    if not 1 <= microseconds <= LONGEST_QUARTER:
        raise ValueError(f"MIDI cannot hold a tempo of {roll.format.tempo} quarter notes per minute")
    ticks_per_step = _ticks_per_step(roll.format)
    ticks_per_quarter = ticks_per_step * roll.format.steps_per_beat
    if ticks_per_quarter > MOST_TICKS:
        raise ValueError(f"MIDI cannot hold {roll.format.steps_per_beat} steps per beat, at most {MOST_TICKS}")
    played = notes(roll)
    played["start"] *= ticks_per_step
    played["end"] *= ticks_per_step
    return write_atomically(
        path,
        file_bytes(
            ticks_per_quarter,
            played,
            microseconds,
            signature(roll.format.beats_per_bar),
            (roll.steps * ticks_per_step, END),
        ),
    )


def _ticks_per_step(form: RollFormat) -> int:
    """Return a whole number of ticks per step, near the usual 480 per quarter note."""
    return max(1, TICKS_PER_QUARTER // form.steps_per_beat)


def _to_roll(
    events: MidiEvents,
    form: RollFormat,
    *,
    phase: str | float,
    pedal: bool,
    beats_per_bar: float | None,
    name: str,
    longest: int,
) -> Roll:
    """Convert events to a roll, by the rules of `read_midi`; ``name`` goes into errors."""
    # 1. what cannot become a roll
    ticks = sustained(events.notes, events.channels, events.pedals) if pedal else events.notes
    ends = [tick for tick, text in events.lyrics if text == END]
    if phase != "auto" and (isinstance(phase, str) or not math.isfinite(phase)):
        raise ValueError(f"phase must be 'auto' or a number of steps, not {phase!r}")
    if not len(ticks) and not ends:
        raise MidiError(f"{name}: no notes")
    pitch, velocity = ticks["pitch"], ticks["velocity"]
    if len(ticks) and (ticks["start"].min() < 0 or pitch.min() < 0 or pitch.max() > 127 or velocity.max() > 127):
        raise MidiError(f"{name}: damaged MIDI file (notes outside of the ranges of MIDI)")

    # 2. onto the grid
    ticks_per_step = events.ticks_per_quarter / form.steps_per_beat
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

    # 3. the tempo and the meter
    tempo = next((60e6 / microseconds for _, microseconds in events.tempos if microseconds > 0), form.tempo)
    meter = longest_lasting(events.meters, max([events.end, *ends])) if beats_per_bar is None else beats_per_bar
    return paint(played, replace(form, tempo=float(tempo), beats_per_bar=meter), steps)
