"""Standard MIDI files, byte by byte: their notes, pedals, tempos, meters and lyrics, in ticks.

Files are read as players read them, which is more than the standard promises: running status goes on after system
messages and meta events, tracks that the header does not count are read, and so are files with other bytes after the
last track. What cannot be read is an error that names the byte, so that no file is ever shortened in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter

import numpy as np

from litscale.music.notes import NOTE
from litscale.music.pairing import Strike, paired

DRUMS = 9  # the channel that musicians call 10
SUSTAIN = 64  # the controller's number
LYRIC, END_OF_TRACK, TEMPO, TIME_SIGNATURE = 0x05, 0x2F, 0x51, 0x58
META_LEAST = {TEMPO: 3, TIME_SIGNATURE: 2}  # bytes that are read; the standard has readers pass over further ones
ONE_BYTE = (0xC0, 0xD0)  # program and pressure; the other messages to channels have two bytes after the status
# Bytes after a status. Files should hold none of these system messages, but that is no reason to lose their notes.
SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xF9: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFD: 0, 0xFE: 0}


class MidiError(ValueError):
    """A MIDI file that cannot become a roll; the message names the file and the reason."""


@dataclass(kw_only=True)
class MidiEvents:
    """What a file holds, of all tracks together.

    Attributes:
        ticks_per_quarter: ticks of a quarter note.
        notes: structured array ``[n]`` of `litscale.music.notes.NOTE`, with ticks for steps; a note may have no length.
        channels: channel of each note, int64 ``[n]``, 0..15.
        pedals: tick, channel and whether the sustain pedal is down from there on.
        tempos: tick and microseconds of a quarter note.
        meters: tick, numerator and denominator of time signatures.
        lyrics: tick and text.
    """

    ticks_per_quarter: int
    notes: np.ndarray
    channels: np.ndarray
    pedals: list[tuple[int, int, bool]] = field(default_factory=list)
    tempos: list[tuple[int, float]] = field(default_factory=list)
    meters: list[tuple[int, int, int]] = field(default_factory=list)
    lyrics: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The tick at which the last note ends; 0 without notes."""
        return int(self.notes["end"].max(initial=0))


def read_events(data: bytes, name: str) -> MidiEvents:
    """Read a standard MIDI file.

    Args:
        data: its bytes.
        name: the file's name, for errors.

    Returns:
        What it holds; lists are sorted by tick, events of one tick as they stand in the file.

    Raises:
        MidiError: the file is damaged, cut short, no MIDI file, in SMPTE time, or of format 2 (sequences that are
            independent of each other, and so no piece).
    """
    ticks_per_quarter, chunks = _chunks(data, name)
    tracks = [_Track(data, start, end, name) for start, end in chunks]
    played = list(chain.from_iterable(paired(track.strikes, track.tick) for track in tracks))
    voice, start, end, velocity = np.array(played, np.int64).reshape(-1, 4).T
    notes = np.empty(len(played), NOTE)
    notes["pitch"], notes["start"], notes["end"], notes["velocity"] = voice & 127, start, end, velocity

    def merged(kind: str) -> list:
        return sorted(chain.from_iterable(getattr(track, kind) for track in tracks), key=itemgetter(0))

    return MidiEvents(
        ticks_per_quarter=ticks_per_quarter,
        notes=notes,
        channels=voice >> 7,
        pedals=merged("pedals"),
        tempos=merged("tempos"),
        meters=merged("meters"),
        lyrics=merged("lyrics"),
    )


def file_bytes(
    ticks_per_quarter: int,
    notes: np.ndarray,
    microseconds: int,
    meter: tuple[int, int] | None,
    lyric: tuple[int, bytes],
) -> bytes:
    """Return a standard MIDI file of format 0 with one piano.

    Args:
        ticks_per_quarter: ticks of a quarter note, 1..32767.
        notes: structured array ``[n]`` of `NOTE`, with ticks for steps; no two sound at once on a pitch.
        microseconds: of a quarter note, 1..2^24 - 1.
        meter: numerator and denominator (a power of two) of the time signature, if it is stated.
        lyric: tick and text of the last event.

    Returns:
        The bytes of the file.
    """
    # 1. what stands before the music
    track = b"\x00\xff\x03\x08litscale" + b"\x00\xff\x51\x03" + microseconds.to_bytes(3)
    if meter is not None:
        # A metronome's click per quarter note, which has 8 32nd notes, as nearly all files say.
        track += b"\x00\xff\x58\x04" + bytes([meter[0], meter[1].bit_length() - 1, 24, 8])
    track += b"\x00\xc0\x00"
    # 2. strikes and releases in the order of time, releases first
    events = [(end, 0, bytes([0x80, pitch, 64])) for pitch, _, end, _ in notes.tolist()]
    events += [(start, 1, bytes([0x90, pitch, velocity])) for pitch, start, _, velocity in notes.tolist()]
    events.append((lyric[0], 2, b"\xff\x05" + _number_bytes(len(lyric[1])) + lyric[1]))
    events.append((lyric[0], 3, b"\xff\x2f\x00"))
    parts, now = [track], 0
    for tick, _, message in sorted(events):
        parts += [_number_bytes(tick - now), message]
        now = tick
    track = b"".join(parts)
    header = b"MThd" + (6).to_bytes(4) + (0).to_bytes(2) + (1).to_bytes(2) + ticks_per_quarter.to_bytes(2)
    return header + b"MTrk" + len(track).to_bytes(4) + track


def _number_bytes(value: int) -> bytes:
    """Encode a number with seven bits in each byte; the highest bit says that another byte follows."""
    result = [value & 0x7F]
    while value := value >> 7:
        result.append(value & 0x7F | 0x80)
    return bytes(reversed(result))


def _chunks(data: bytes, name: str) -> tuple[int, list[tuple[int, int]]]:
    """Return the ticks of a quarter note, and where the bytes of each track start and end."""
    # 1. the header
    if len(data) < 14 or data[:4] != b"MThd":
        raise MidiError(f"{name}: not a MIDI file ({len(data)} bytes, no MThd header)")
    length, form, counted, division = (int.from_bytes(data[i:j]) for i, j in ((4, 8), (8, 10), (10, 12), (12, 14)))
    if length < 6:
        raise MidiError(f"{name}: damaged MIDI file at byte 4 (a header of {length} bytes)")
    if form not in (0, 1):
        raise MidiError(
            f"{name}: a MIDI file of format {form}, whose tracks are independent pieces; save each as format 1"
        )
    if division == 0 or division & 0x8000:
        raise MidiError(f"{name}: time is not counted in ticks per quarter note")

    # 2. the chunks, of which the last may be no chunk but a remark of the program that wrote the file
    position, tracks = 8 + length, []
    while position + 8 <= len(data):
        kind, start = data[position : position + 4], position + 8
        position = start + int.from_bytes(data[position + 4 : start])
        if kind == b"MTrk":
            tracks.append((start, position))
    if len(tracks) < counted:
        raise MidiError(f"{name}: cut short ({len(tracks)} of {counted} tracks)")
    if tracks and tracks[-1][1] > len(data):
        raise MidiError(f"{name}: cut short (the last track lacks {tracks[-1][1] - len(data)} bytes)")
    return division, tracks


class _Track:
    """The events of one track chunk, read on creation.

    Args:
        data: the whole file.
        start: first byte of the track's events.
        end: the byte after the last one.
        name: the file's name, for errors.
    """

    def __init__(self, data: bytes, start: int, end: int, name: str) -> None:
        self.strikes: list[Strike] = []
        self.pedals: list[tuple[int, int, bool]] = []
        self.tempos: list[tuple[int, int]] = []
        self.meters: list[tuple[int, int, int]] = []
        self.lyrics: list[tuple[int, bytes]] = []
        self.tick = 0
        self._events, self._began, self._ended = data[start:end], 0, False
        self._where = (name, start)
        try:
            self._read()
        except IndexError:
            raise self._damaged("the track ends within an event") from None
        # A track without its end is common enough, but where no track follows either, its length may be wrong.
        if not self._ended and data[end : end + 4] not in (b"MTrk", b""):
            raise self._damaged("a track without an end")

    def _read(self) -> None:
        """Read all events in order. Nearly all of the time is spent here, hence the local names."""
        events, size, strike, number = self._events, len(self._events), self.strikes.append, self._number
        position = tick = status = kind = voices = 0
        while position < size and not self._ended:
            # 1. the time since the last event
            self._began = position
            byte = events[position]
            position += 1
            if byte >= 0x80:
                byte, position = number(position - 1)
            tick += byte
            # 2. the status, which is left out where it is that of the last message to a channel
            byte = events[position]
            if byte >= 0xF0:
                # The standard ends the running status here; files that go on with it have lost nothing.
                self.tick = tick
                position = self._system(byte, position + 1)
                continue
            if byte >= 0x80:
                position += 1
                status, kind, voices = byte, byte & 0xF0, (byte & 0x0F) << 7
            elif not status:
                raise self._damaged("data without a status byte")
            # 3. the message
            first = second = events[position]
            position += 1
            if kind not in ONE_BYTE:
                second = events[position]
                position += 1
            if first | second > 0x7F:
                raise self._damaged("a status byte instead of data")
            if kind == 0x90:
                strike((tick, voices | first, second))
            elif kind == 0x80:
                strike((tick, voices | first, 0))
            elif kind == 0xB0 and first == SUSTAIN:
                self.pedals.append((tick, status & 0x0F, second >= 64))
        self.tick = tick
        if any(events[position:]):
            self._began = position
            raise self._damaged(f"{size - position} bytes after the end of the track")

    def _number(self, position: int) -> tuple[int, int]:
        """Read a number with seven bits in each byte, whose highest bit says that more follow; also return its end."""
        value, start = 0, position
        while True:
            byte = self._events[position]
            position += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, position
            if position - start == 4:
                raise self._damaged("a number of more than four bytes")

    def _system(self, status: int, position: int) -> int:
        """Read a system message or meta event, and return the position after it."""
        kind = None
        if status == 0xFF:
            kind = self._events[position]
            position += 1
        if status in (0xF0, 0xF7, 0xFF):
            length, position = self._number(position)
        elif status in SYSTEM_BYTES:
            length = SYSTEM_BYTES[status]
        else:
            raise self._damaged(f"an unknown status {status:#x}")
        if position + length > len(self._events):
            raise self._damaged("the track ends within an event")
        if kind is not None:
            self._meta(kind, self._events[position : position + length])
        return position + length

    def _meta(self, kind: int, content: bytes) -> None:
        """Store what a meta event says."""
        if len(content) < META_LEAST.get(kind, 0):
            raise self._damaged(f"a meta event {kind:#x} of {len(content)} bytes")
        if kind == END_OF_TRACK:
            self._ended = True
        elif kind == TEMPO:
            self.tempos.append((self.tick, int.from_bytes(content[:3])))
        elif kind == TIME_SIGNATURE:
            self.meters.append((self.tick, content[0], 2 ** content[1]))
        elif kind == LYRIC:
            self.lyrics.append((self.tick, content))

    def _damaged(self, reason: str) -> MidiError:
        """Return the error for the event that is being read; it names the event's first byte."""
        name, start = self._where
        return MidiError(f"{name}: damaged MIDI file at byte {start + self._began} ({reason})")
