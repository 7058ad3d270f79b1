"""MIDI files to rolls and back: what is kept, what is decided, what is refused."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litscale.music import (
    MidiError,
    Roll,
    RollFormat,
    from_pretty_midi,
    notes,
    read_midi,
    repair,
    to_pretty_midi,
    write_midi,
)

SONGS = sorted((Path(__file__).parents[2] / "data" / "pop909").glob("*.mid"))
ENCODINGS = ("onset_hold", "binary", "velocity")


@st.composite
def rolls(draw: st.DrawFn) -> Roll:
    """Canonical rolls over all pitches, dense where it matters: few rows, many changes."""
    form = RollFormat(
        draw(st.sampled_from(ENCODINGS)),
        steps_per_beat=draw(st.sampled_from([1, 3, 4, 7, 12])),
        velocity_bins=draw(st.sampled_from([1, 2, 8, 32, 126, 127])),
        tempo=draw(st.sampled_from([30.0, 93.7, 120.0])),
    )
    symbols = np.zeros((128, draw(st.integers(0, 24))), np.uint8)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for row in draw(st.sets(st.integers(0, 127), max_size=6)):
        choices = [0, form.alphabet - 1, int(rng.integers(form.alphabet)), int(rng.integers(form.alphabet))]
        symbols[row] = rng.choice(choices, symbols.shape[1])
    return repair(Roll(symbols, form))


def read_back(path: Path, form: RollFormat) -> Roll:
    return read_midi(path, form.encoding, form.steps_per_beat, velocity_bins=form.velocity_bins)


def midi_file(path: Path, *tracks: list[tuple[int, mido.Message]], ticks: int = 480) -> Path:
    """Write tracks of (absolute tick, message)."""
    file = mido.MidiFile(ticks_per_beat=ticks)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    file.save(path)
    return path


def note(pitch: int, start: int, end: int, velocity: int = 64, channel: int = 0) -> list:
    on = mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)
    return [(start, on), (end, mido.Message("note_off", note=pitch, channel=channel))]


def found(roll: Roll) -> list[tuple[int, ...]]:
    return [tuple(row) for row in notes(roll).tolist()]


@settings(deadline=None, max_examples=150)
@given(roll=rolls())
def test_round_trip_is_the_identity(roll: Roll, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_midi(roll, tmp_path_factory.getbasetemp() / "round.mid")
    back = read_back(path, roll.format)
    np.testing.assert_array_equal(back.symbols, roll.symbols)
    assert back.format.tempo == pytest.approx(roll.format.tempo, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(roll=rolls())
def test_round_trip_through_pretty_midi_and_its_files(roll: Roll, tmp_path_factory: pytest.TempPathFactory) -> None:
    form = roll.format
    midi = to_pretty_midi(roll)
    back = from_pretty_midi(midi, form.encoding, form.steps_per_beat, velocity_bins=form.velocity_bins)
    np.testing.assert_array_equal(back.symbols, roll.symbols)
    path = tmp_path_factory.getbasetemp() / "pretty.mid"
    midi.write(str(path))
    np.testing.assert_array_equal(read_back(path, form).symbols, roll.symbols)


@pytest.mark.parametrize("beats", [1.5, 2, 3, 3.5, 4, 5, 6.75, 255])
def test_meters_come_back(beats: float, tmp_path: Path) -> None:
    roll = Roll(np.zeros((128, 8), np.uint8), RollFormat(beats_per_bar=beats))
    assert read_midi(write_midi(roll, tmp_path / "a.mid")).format.beats_per_bar == beats
    midi = to_pretty_midi(roll)
    assert from_pretty_midi(midi).format.beats_per_bar == beats
    midi.write(str(tmp_path / "pretty.mid"))
    assert read_midi(tmp_path / "pretty.mid").format.beats_per_bar == beats


def test_a_meter_that_midi_cannot_hold_is_not_stated(tmp_path: Path) -> None:
    roll = Roll(np.zeros((128, 8), np.uint8), RollFormat(beats_per_bar=3.3))
    assert read_midi(write_midi(roll, tmp_path / "a.mid")).format.beats_per_bar == 4
    assert from_pretty_midi(to_pretty_midi(roll)).format.beats_per_bar == 4


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("steps", [0, 5])
def test_silent_rolls_come_back(encoding: str, steps: int, tmp_path: Path) -> None:
    roll = Roll(np.zeros((128, steps), np.uint8), RollFormat(encoding))
    assert read_back(write_midi(roll, tmp_path / "a.mid"), roll.format).symbols.shape == (128, steps)


@pytest.mark.parametrize("song", SONGS, ids=lambda song: song.stem)
@pytest.mark.parametrize("bins", [127, 8])
def test_songs_keep_their_notes(song: Path, bins: int, tmp_path: Path) -> None:
    roll = read_midi(song, velocity_bins=bins)
    again = read_midi(write_midi(roll, tmp_path / "a.mid"), velocity_bins=bins)
    np.testing.assert_array_equal(again.symbols, roll.symbols)
    np.testing.assert_array_equal(notes(again), notes(roll))
    np.testing.assert_array_equal(read_midi(song, "binary").symbols, roll.symbols > 0)


@pytest.mark.parametrize("song", SONGS, ids=lambda song: song.stem)
def test_a_song_read_by_hand(song: Path) -> None:
    """pretty_midi reads the same song, and plain arithmetic puts it on the same grid."""
    midi = pretty_midi.PrettyMIDI(str(song))
    roll = read_midi(song, phase=0)
    step = midi.resolution / 4
    played = [n for track in midi.instruments for n in track.notes]
    starts = {(n.pitch, int(np.floor(midi.time_to_tick(n.start) / step + 0.5))) for n in played}
    assert {(pitch, start) for pitch, start, _, _ in found(roll)} == starts
    assert roll.format.tempo == pytest.approx(midi.get_tempo_changes()[1][0])
    np.testing.assert_array_equal(from_pretty_midi(midi, phase=0).symbols, roll.symbols)


def test_notes_move_to_the_nearest_step_and_last_at_least_one(tmp_path: Path) -> None:
    path = midi_file(
        tmp_path / "a.mid", note(60, 59, 170, 10), note(61, 60, 300, 20), note(62, 240, 240), note(63, 240, 250)
    )
    assert found(read_midi(path, phase=0)) == [(60, 0, 1, 10), (61, 1, 3, 20), (62, 2, 3, 64), (63, 2, 3, 64)]


def test_phase_moves_the_grid(tmp_path: Path) -> None:
    path = midi_file(tmp_path / "a.mid", note(60, 50, 170), note(60, 530, 650))
    assert [n[1:3] for n in found(read_midi(path))] == [(0, 1), (4, 5)]
    assert [n[1:3] for n in found(read_midi(path, phase=0.75))] == [(1, 2), (5, 6)]
    np.testing.assert_array_equal(read_midi(path, phase=0.75).symbols, read_midi(path, phase=-0.25).symbols)


def test_overlaps(tmp_path: Path) -> None:
    later_ends_earlier = [note(60, 0, 960, 50), note(60, 240, 360, 40)]
    loudest_stays = [note(64, 0, 960, 50), note(64, 0, 240, 70)]
    then_longest = [note(67, 0, 240, 50), note(67, 0, 480, 50)]
    path = midi_file(tmp_path / "a.mid", *later_ends_earlier, *loudest_stays, *then_longest)
    expected = [(60, 0, 2, 50), (64, 0, 2, 70), (67, 0, 4, 50), (60, 2, 3, 40)]
    assert found(read_midi(path, phase=0)) == expected


def test_drums_are_left_out_and_programs_do_not_matter(tmp_path: Path) -> None:
    melody = [*note(60, 0, 120), (60, mido.Message("program_change", program=40)), *note(62, 120, 240)]
    path = midi_file(tmp_path / "a.mid", melody, note(38, 0, 120, channel=9), note(48, 0, 240, channel=3))
    assert [n[0] for n in found(read_midi(path))] == [48, 60, 62]
    assert [n[0] for n in found(read_midi(path, drums=True))] == [38, 48, 60, 62]
    midi = pretty_midi.PrettyMIDI(str(path))
    np.testing.assert_array_equal(from_pretty_midi(midi).symbols, read_midi(path).symbols)


def test_tempo_changes_leave_the_grid_alone(tmp_path: Path) -> None:
    tempos = [(0, mido.MetaMessage("set_tempo", tempo=750000)), (240, mido.MetaMessage("set_tempo", tempo=300000))]
    path = midi_file(tmp_path / "a.mid", tempos, note(60, 0, 480), note(62, 480, 960))
    roll = read_midi(path)
    assert found(roll) == [(60, 0, 4, 64), (62, 4, 8, 64)]
    assert roll.format.tempo == pytest.approx(80)
    assert found(from_pretty_midi(pretty_midi.PrettyMIDI(str(path)))) == found(roll)


def test_without_a_tempo_it_is_120(tmp_path: Path) -> None:
    assert read_midi(midi_file(tmp_path / "a.mid", note(60, 0, 480))).format.tempo == 120


def test_steps_need_not_divide_the_ticks(tmp_path: Path) -> None:
    path = midi_file(tmp_path / "a.mid", note(60, 0, 32), note(62, 64, 96), ticks=96)
    assert found(read_midi(path, steps_per_beat=9, phase=0)) == [(60, 0, 3, 64), (62, 6, 9, 64)]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mid"):
        read_midi(tmp_path / "none.mid")


@pytest.mark.parametrize("cut", [0, 3, 14, 20, 100, -40, -1])
def test_truncated_songs(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.mid"
    path.write_bytes(SONGS[0].read_bytes()[:cut])
    with pytest.raises(MidiError, match=r"cut\.mid: (not a MIDI file|cut short|damaged)"):
        read_midi(path)


def test_a_song_cut_between_two_tracks(tmp_path: Path) -> None:
    data = SONGS[0].read_bytes()
    path = tmp_path / "cut.mid"
    path.write_bytes(data[: data.rindex(b"MTrk")])
    with pytest.raises(MidiError, match=r"cut\.mid: cut short \(3 of 4 tracks\)"):
        read_midi(path)


@pytest.mark.parametrize("seed", range(5))
def test_noise(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "noise.mid"
    rng = np.random.default_rng(seed)
    path.write_bytes(rng.bytes(300))
    with pytest.raises(MidiError, match=r"noise\.mid: not a MIDI file"):
        read_midi(path)
    path.write_bytes(b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk" + (300).to_bytes(4) + rng.bytes(300))
    with pytest.raises(MidiError, match=r"noise\.mid: "):
        read_midi(path)


def test_time_in_smpte_frames(tmp_path: Path) -> None:
    path = tmp_path / "smpte.mid"
    path.write_bytes(SONGS[0].read_bytes()[:12] + b"\xe7\x28" + SONGS[0].read_bytes()[14:])
    with pytest.raises(MidiError, match=r"smpte\.mid: time is not counted in ticks"):
        read_midi(path)


def test_an_endless_file(tmp_path: Path) -> None:
    with pytest.raises(MidiError, match=r"long\.mid: 2000001 steps are more than"):
        read_midi(midi_file(tmp_path / "long.mid", note(60, 0, 120), note(60, 240_000_000, 240_000_120)))


def test_a_file_longer_than_it_may_be(tmp_path: Path) -> None:
    path = midi_file(tmp_path / "long.mid", note(60, 0, 120), note(62, 1080, 1200))
    assert read_midi(path, longest=10).steps == 10
    with pytest.raises(MidiError, match=r"long\.mid: 10 steps are more than 9"):
        read_midi(path, longest=9)


def test_no_notes(tmp_path: Path) -> None:
    tempo = [(0, mido.MetaMessage("set_tempo", tempo=500000))]
    with pytest.raises(MidiError, match=r"drums\.mid: no notes"):
        read_midi(midi_file(tmp_path / "drums.mid", tempo, note(38, 0, 120, channel=9)))
    with pytest.raises(MidiError, match="no notes"):
        from_pretty_midi(pretty_midi.PrettyMIDI())


def test_strange_arguments() -> None:
    with pytest.raises(ValueError, match="phase must be 'auto' or a number"):
        read_midi(SONGS[0], phase="best")
    with pytest.raises(ValueError, match="phase must be 'auto' or a number"):
        read_midi(SONGS[0], phase=float("nan"))
    with pytest.raises(ValueError, match="encoding must be one of"):
        read_midi(SONGS[0], "midi")


def test_lyrics_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    file = mido.MidiFile(charset="latin1")
    track = mido.MidiTrack([mido.MetaMessage("lyrics", text="\xe9\xff"), *(m for _, m in note(60, 0, 120))])
    track[-1].time = 120
    file.tracks.append(track)
    file.save(tmp_path / "a.mid")
    assert found(read_midi(tmp_path / "a.mid")) == [(60, 0, 1, 64)]


def test_a_tempo_that_midi_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tempo of 1\.0"):
        write_midi(Roll(np.zeros((128, 1), np.uint8), RollFormat(tempo=1.0)), tmp_path / "a.mid")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    roll, path = read_midi(SONGS[0]), tmp_path / "song.mid"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write the file \(No space left on device\).*song\.mid") as caught:
        write_midi(roll, path)
    assert caught.value.errno == errno.ENOSPC
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"before"]


def test_a_disk_that_takes_no_more_bytes(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not write the file \(File too large\).*song\.mid") as caught:
            write_midi(Roll(np.zeros((128, 1), np.uint8)), tmp_path / "song.mid")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/song\.mid"):
        write_midi(Roll(np.zeros((128, 1), np.uint8)), tmp_path / "nowhere" / "song.mid")
