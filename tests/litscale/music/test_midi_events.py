"""Unusual and damaged MIDI files, byte by byte: what is read of them, and what is said of them."""

from __future__ import annotations

import io
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_bytes import STEP, header, meter, off, on, pedal, tempo, track, write

from litscale.music import MidiError, Roll, from_pretty_midi, notes, read_midi
from litscale.music.midi_events import read_events

SONGS = sorted((Path(__file__).parents[2] / "data" / "pop909").glob("*.mid"))
NOTE = [(0, on(60)), (4, off(60))]


def found(roll: Roll) -> list[tuple[int, ...]]:
    """Pitch, start and end of the notes."""
    return [tuple(row)[:3] for row in notes(roll).tolist()]


def read(path: Path, *parts: bytes, **options: object) -> list[tuple[int, ...]]:
    return found(read_midi(write(path / "a.mid", *parts), phase=0, **options))


LOST = {
    "on, on, off keeps both": ([(0, on(60)), (4, on(60)), (8, off(60))], [(60, 0, 4), (60, 4, 8)]),
    "rests stay rests": (
        [(0, on(60)), (4, on(60)), (8, off(60)), (40, on(60)), (44, off(60)), (76, on(60)), (80, off(60))],
        [(60, 0, 4), (60, 4, 8), (60, 40, 44), (60, 76, 80)],
    ),
    "several lost": (
        [(0, on(60)), (3, on(60)), (5, on(60)), (6, off(60)), (9, on(60)), (11, on(60)), (12, off(60))],
        [(60, 0, 3), (60, 3, 5), (60, 5, 6), (60, 9, 11), (60, 11, 12)],
    ),
    "other pitches and channels": (
        [(0, on(60)), (1, on(61, 64, 2)), (2, off(61)), (3, off(60, 2)), (4, on(60)), (5, off(60)), (7, off(61, 2))],
        [(60, 0, 4), (61, 1, 7), (60, 4, 5)],
    ),
    "the strike first, at one tick": (
        [(0, on(60)), (4, on(60)), (4, off(60)), (7, off(60))],
        [(60, 0, 4), (60, 4, 7)],
    ),
    "two notes ended by two struck before the releases": (
        [(0, on(60)), (0, on(60)), (4, on(60)), (4, on(60)), (4, off(60)), (4, off(60)), (7, off(60)), (7, off(60))],
        [(60, 0, 4), (60, 4, 7)],
    ),
    "struck twice at once, released once": (
        [(0, on(60)), (0, on(60)), (4, off(60)), (40, on(60)), (44, off(60))],
        [(60, 0, 4), (60, 40, 44)],
    ),
    "releases of nothing": ([(0, off(60)), (1, on(60)), (2, off(60)), (3, off(60)), (4, on(62)), (5, off(62))], None),
}


@pytest.mark.parametrize(("events", "expected"), LOST.values(), ids=LOST)
def test_lost_releases(events: list, expected: list | None, tmp_path: Path) -> None:
    expected = expected or [(60, 1, 2), (62, 4, 5)]
    assert read(tmp_path, header(), track(*events)) == expected
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    if events[-1] != events[-2]:  # of two releases at once pretty_midi takes one for the later notes
        assert found(from_pretty_midi(midi, phase=0)) == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, on(60)), (0, off(60))], []),
        ([(0, on(60)), (4, on(60)), (4, off(60)), (4, off(60))], [(60, 0, 4)]),
    ],
    ids=["alone", "after a note that it ends"],
)
def test_a_note_released_where_it_is_struck_does_not_sound_on(events: list, expected: list, tmp_path: Path) -> None:
    read_notes = read(tmp_path, header(), track(*events, (8, on(60)), (12, off(60))))
    tick = events[-1][0]
    assert read_notes == [*expected, (60, tick, tick + 1), (60, 8, 12)]  # a roll shows a note of no length in one step


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_lost_release_costs_the_end_of_its_own_note_alone(data: st.DataObject) -> None:
    """Notes on few pitches and channels, one after the other on each, of which one loses its release."""
    played, end = [], 50
    for voice in ((60, 0), (60, 1), (61, 0)):
        edges = sorted(data.draw(st.sets(st.integers(0, 40), min_size=2, max_size=12)))
        played += [(*voice, start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=False)]
    lost = data.draw(st.integers(0, len(played) - 1))
    strikes = [(start, 1, on(pitch, 64, channel)) for pitch, channel, start, _ in played]
    releases = [(stop, 0, off(pitch, channel)) for pitch, channel, _, stop in played]
    del releases[lost]
    events = [(tick, message) for tick, _, message in sorted(strikes + releases)]
    found = read_events(header() + track(*events, (end, b"\xff\x2f\x00"), end=b""), "a")

    pitch, channel, start, _ = played[lost]
    later = [other[2] for other in played if other[:2] == (pitch, channel) and other[2] > start]
    played[lost] = (pitch, channel, start, min(later, default=end))
    expected = sorted((pitch, channel, STEP * start, STEP * stop) for pitch, channel, start, stop in played)
    rows = zip(found.notes.tolist(), found.channels.tolist(), strict=True)
    assert sorted((note[0], channel, *note[1:3]) for note, channel in rows) == expected


def test_the_last_release_lost(tmp_path: Path) -> None:
    end = (12, b"\xff\x2f\x00")
    assert read(tmp_path, header(), track(*NOTE, (8, on(62)), end, end=b"")) == [(60, 0, 4), (62, 8, 12)]


def test_velocity_zero_releases_and_running_status(tmp_path: Path) -> None:
    events = [(0, on(60)), (4, bytes([60, 0])), (4, bytes([62, 64])), (7, bytes([62, 0]))]
    assert read(tmp_path, header(), track(*events)) == [(60, 0, 4), (62, 4, 7)]


SYSTEM = {
    "sysex": b"\xf0\x03\x01\x02\xf7",
    "empty sysex": b"\xf0\x00",
    "long sysex": b"\xf0\x81\x00" + b"\x01" * 127 + b"\xf7",
    "escape": b"\xf7\x02\xf3\x01",
    "text": b"\xff\x01\x02\x90\x3c",
    "long text": b"\xff\x01\x82\x00" + b"\x90" * 256,
    "song position": b"\xf2\x01\x02",
    "time code": b"\xf1\x01",
    "song": b"\xf3\x01",
    "tune": b"\xf6",
    "clock": b"\xf8",
    "sensing": b"\xfe",
}


@pytest.mark.parametrize("message", SYSTEM.values(), ids=SYSTEM)
def test_running_status_goes_on_after(message: bytes, tmp_path: Path) -> None:
    events = [(0, on(60)), (4, bytes([60, 0])), (4, message), (4, bytes([62, 64])), (8, bytes([62, 0]))]
    assert read(tmp_path, header(), track(*events)) == [(60, 0, 4), (62, 4, 8)]


def test_channel_messages_of_one_and_two_bytes_are_passed_over(tmp_path: Path) -> None:
    others = [b"\xc0\x05", b"\xd0\x40", b"\xe0\x00\x40", b"\xa0\x3c\x10", b"\xb0\x07\x64"]
    events = [(0, message) for message in others] + NOTE
    assert read(tmp_path, header(), track(*events)) == [(60, 0, 4)]


@pytest.mark.parametrize("counted", [0, 1, 2])
def test_tracks_that_the_header_does_not_count(counted: int, tmp_path: Path) -> None:
    parts = [header(counted, 1), track(*NOTE), track((2, on(72)), (6, off(72))), track((1, on(40)), (3, off(40)))]
    assert read(tmp_path, *parts) == [(60, 0, 4), (40, 1, 3), (72, 2, 6)]


@pytest.mark.parametrize("more", [b"", b"\n", b"made by a program", b"MTr", b"XFIH\xff\xff\xff\xff", b"\x00" * 50])
def test_bytes_after_the_last_track(more: bytes, tmp_path: Path) -> None:
    assert read(tmp_path, header(), track(*NOTE), more) == [(60, 0, 4)]


def test_other_chunks_and_longer_headers(tmp_path: Path) -> None:
    other = b"XFKM" + (5).to_bytes(4) + b"MTrk\x00"
    parts = [header(2, 1, more=b"\x01\x02"), other, track(*NOTE), other, track((4, on(61)), (5, off(61))), other]
    assert read(tmp_path, *parts) == [(60, 0, 4), (61, 4, 5)]


def test_a_track_may_lack_its_end_or_be_filled_up(tmp_path: Path) -> None:
    parts = [header(2, 1), track(*NOTE, end=b""), track((4, on(61)), (5, off(61)), end=b"")]
    assert read(tmp_path, *parts) == [(60, 0, 4), (61, 4, 5)]
    assert read(tmp_path, header(), track(*NOTE, end=b"\x00\xff\x2f\x00\x00\x00\x00")) == [(60, 0, 4)]


@pytest.mark.parametrize(
    ("tempos", "expected"),
    [([0], 120), ([0, 400_000], 150), ([600_000, 0], 100), ([300_000, 600_000], 200)],
)
def test_tempos_of_zero_are_none(tempos: list[int], expected: float, tmp_path: Path) -> None:
    events = [(step, tempo(value)) for step, value in enumerate(tempos)]
    path = write(tmp_path / "a.mid", header(), track(*events, (4, on(60)), (8, off(60))))
    assert read_midi(path).format.tempo == pytest.approx(expected)


DAMAGED = {
    "no status": ((0, b"\x3c\x40"), 22, "data without a status byte"),
    "a status for data": ((0, b"\x90\x3c\xf0"), 22, "a status byte instead of data"),
    "a status for the only data": ((0, b"\xc0\x90"), 22, "a status byte instead of data"),
    "unknown status": ((0, b"\xf4"), 22, "an unknown status 0xf4"),
    "a long number": ((0, b"\xff\x01\x80\x80\x80\x80\x00"), 22, "a number of more than four bytes"),
    "text beyond the end": ((0, b"\xff\x01\x20"), 22, "the track ends within an event"),
    "sysex beyond the end": ((0, b"\xf0\x7f"), 22, "the track ends within an event"),
    "a short tempo": ((0, b"\xff\x51\x02\x01\x01"), 22, "a meta event 0x51 of 2 bytes"),
    "a short meter": ((0, b"\xff\x58\x01\x03"), 22, "a meta event 0x58 of 1 bytes"),
    "music after the end": ((0, b"\xff\x2f\x00\x00\x90\x3c\x40"), 26, "8 bytes after the end of the track"),
}


@pytest.mark.parametrize(("event", "byte", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named_with_its_byte(event: tuple[int, bytes], byte: int, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.mid", header(), track(event))
    with pytest.raises(MidiError, match=rf"bad\.mid: damaged MIDI file at byte {byte} \({reason}\)"):
        read_midi(path)


def test_the_byte_is_counted_from_the_start_of_the_file(tmp_path: Path) -> None:
    first = track(*NOTE)
    path = write(tmp_path / "bad.mid", header(2, 1), first, track((0, on(60)), (4, b"\xf5")))
    # 14 of the header, the first track, 8 of the second one's head and 4 of its first event.
    with pytest.raises(MidiError, match=rf"byte {14 + len(first) + 8 + 4} "):
        read_midi(path)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 8])
def test_a_track_whose_length_is_too_small(cut: int, tmp_path: Path) -> None:
    whole = track(*NOTE, (8, on(62)), (12, off(62)))
    short = b"MTrk" + (len(whole) - 8 - cut).to_bytes(4) + whole[8:]
    with pytest.raises(MidiError, match=r"bad\.mid: damaged MIDI file at byte \d+ \(.*track"):
        read_midi(write(tmp_path / "bad.mid", header(), short))


@pytest.mark.parametrize("form", [2, 3, 0x100])
def test_tracks_that_are_no_piece(form: int, tmp_path: Path) -> None:
    path = write(tmp_path / "two.mid", header(2, form), track(*NOTE), track(*NOTE))
    with pytest.raises(
        MidiError, match=rf"two\.mid: a MIDI file of format {form}, whose tracks are independent pieces"
    ):
        read_midi(path)


def test_a_header_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(MidiError, match=r"bad\.mid: damaged MIDI file at byte 4 \(a header of 5 bytes\)"):
        read_midi(write(tmp_path / "bad.mid", header().replace(b"\x06", b"\x05", 1), track(*NOTE)))


PEDALS = {
    "held until it comes up": ([(0, pedal(127)), (0, on(60)), (2, off(60)), (9, pedal(0))], [(60, 0, 9)]),
    "down before the release only": ([(0, on(60)), (1, pedal(64)), (2, off(60)), (5, pedal(63))], [(60, 0, 5)]),
    "not down": ([(0, on(60)), (1, pedal(63)), (2, off(60)), (5, pedal(64)), (9, pedal(0))], [(60, 0, 2)]),
    "down at the tick of the release": ([(0, on(60)), (2, off(60)), (2, pedal(127)), (5, pedal(0))], [(60, 0, 5)]),
    "up at the tick of the release": ([(0, pedal(127)), (0, on(60)), (2, pedal(0)), (2, off(60))], [(60, 0, 2)]),
    "down twice": ([(0, pedal(100)), (0, on(60)), (2, off(60)), (4, pedal(90)), (6, pedal(0))], [(60, 0, 6)]),
    "struck again": (
        [(0, pedal(127)), (0, on(60)), (2, off(60)), (4, on(60)), (5, off(60)), (8, pedal(0))],
        [(60, 0, 4), (60, 4, 8)],
    ),
    "of another channel": (
        [(0, pedal(127, 3)), (0, on(60)), (0, on(62, channel=3)), (2, off(60)), (2, off(62, 3)), (8, pedal(0, 3))],
        [(60, 0, 2), (62, 0, 8)],
    ),
    "never up again": (
        [(0, pedal(127)), (0, on(60)), (2, off(60)), (4, on(62)), (7, off(62))],
        [(60, 0, 7), (62, 4, 7)],
    ),
}


@pytest.mark.parametrize(("events", "expected"), PEDALS.values(), ids=PEDALS)
def test_the_sustain_pedal(events: list, expected: list, tmp_path: Path) -> None:
    assert read(tmp_path, header(), track(*events), pedal=True) == expected
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid"))
    assert found(from_pretty_midi(midi, phase=0, pedal=True)) == expected
    assert found(from_pretty_midi(midi, phase=0)) == read(tmp_path, header(), track(*events))
    assert found(from_pretty_midi(midi, phase=0))[0] == (60, 0, 2)


def test_a_pedal_on_another_track_of_the_channel(tmp_path: Path) -> None:
    parts = [header(2, 1), track((0, pedal(127)), (6, pedal(0))), track((0, on(60)), (2, off(60)))]
    assert read(tmp_path, *parts, pedal=True) == [(60, 0, 6)]


@pytest.mark.parametrize("song", SONGS, ids=lambda song: song.stem)
def test_events_are_those_that_mido_finds(song: Path) -> None:
    file, events = mido.MidiFile(song), read_events(song.read_bytes(), song.name)
    expected: list[tuple[int, int, int]] = []
    tempos, meters = [], []
    for messages in file.tracks:
        now = 0
        for message in messages:
            now += message.time
            if message.type == "note_on" and message.velocity:
                expected.append((now, message.note, message.velocity))
            tempos += [(now, message.tempo)] if message.type == "set_tempo" else []
            meters += [(now, message.numerator, message.denominator)] if message.type == "time_signature" else []
    struck = events.notes[["start", "pitch", "velocity"]].tolist()
    assert sorted(struck) == sorted(expected)
    assert (events.tempos, events.meters) == (tempos, meters)
    assert events.ticks_per_quarter == file.ticks_per_beat


def test_what_mido_writes_is_read_whatever_the_status(tmp_path: Path) -> None:
    """Random messages of all kinds, written by another program."""
    rng = np.random.default_rng(5)
    file, messages, expected, now = mido.MidiFile(ticks_per_beat=96), mido.MidiTrack(), [], 0
    kinds = [
        lambda: mido.Message("control_change", control=int(rng.integers(120)), value=int(rng.integers(128))),
        lambda: mido.Message("program_change", program=int(rng.integers(128))),
        lambda: mido.Message("pitchwheel", pitch=int(rng.integers(-8192, 8192))),
        lambda: mido.Message("sysex", data=rng.integers(128, size=rng.integers(300)).tolist()),
        lambda: mido.MetaMessage("text", text="x" * int(rng.integers(300))),
    ]
    for _ in range(400):
        wait = int(rng.integers(20_000))
        now += wait
        if rng.random() < 0.5:
            messages.append(kinds[rng.integers(len(kinds))]().copy(time=wait))
            continue
        pitch, velocity, channel = int(rng.integers(128)), int(rng.integers(1, 128)), int(rng.integers(16))
        messages.append(mido.Message("note_on", note=pitch, velocity=velocity, channel=channel, time=wait))
        messages.append(mido.Message("note_off", note=pitch, channel=channel, time=1))
        expected.append((pitch, now, now + 1, velocity))
        now += 1
    file.tracks.append(messages)
    buffer = io.BytesIO()
    file.save(file=buffer)
    assert sorted(read_events(buffer.getvalue(), "a").notes.tolist()) == sorted(expected)


METERS = {
    "nothing stated": ([], 4),
    "a waltz": ([(0, meter(3, 4))], 3),
    "six eighths": ([(0, meter(6, 8))], 3),
    "seven eighths": ([(0, meter(7, 8))], 3.5),
    "three eighths": ([(0, meter(3, 8))], 1.5),
    "cut time": ([(0, meter(2, 2))], 4),
    "one quarter is no bar": ([(0, meter(1, 4))], 4),
    "no beats are no bar": ([(0, meter(0, 4))], 4),
    "the one that lasts longest": ([(0, meter(4, 4)), (30, meter(3, 4))], 3),
    "though it comes first": ([(0, meter(5, 4)), (60, meter(3, 4))], 5),
    "equal bars add up": ([(0, meter(3, 4)), (25, meter(2, 4)), (55, meter(6, 8)), (75, meter(5, 4))], 3),
    "stated late": ([(51, meter(3, 4))], 4),
    "stated early": ([(49, meter(3, 4))], 3),
    "the last of one tick": ([(0, meter(4, 4)), (0, meter(3, 4))], 3),
    "after the end": ([(0, meter(3, 4)), (100, meter(2, 4))], 3),
}


@pytest.mark.parametrize(("events", "expected"), METERS.values(), ids=METERS)
def test_the_meter_of_a_piece(events: list, expected: float, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mid", header(2, 1), track(*events, (1000, b"\xff\x06\x00")), track((0, on(60)), (100, off(60)))
    )
    assert read_midi(path, phase=0).format.beats_per_bar == expected
    if (0, meter(0, 4)) not in events:  # which pretty_midi refuses
        assert from_pretty_midi(pretty_midi.PrettyMIDI(str(path)), phase=0).format.beats_per_bar == expected
    assert read_midi(path, phase=0, beats_per_bar=5).format.beats_per_bar == 5
