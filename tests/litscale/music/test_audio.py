"""Sound: as long as the roll, in tune, neither clipping nor silent."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from litscale.music import Roll, RollFormat, Sound, render, write_wav
from litscale.music.audio import DEFAULT_FONT


def one_note(pitch: int = 69, velocity: int = 100, start: int = 0, length: int = 8, steps: int = 8) -> Roll:
    symbols = np.zeros((128, steps), np.uint8)
    symbols[pitch, start : start + length] = 128
    symbols[pitch, start] = velocity
    return Roll(symbols, RollFormat())


def test_length_and_type() -> None:
    sound = render(one_note(), 8000)
    assert sound.dtype == np.float32
    assert sound.shape == (8000 + 2400,)


@pytest.mark.parametrize("instrument", ["piano", "choir", "organ", "church organ", "strings", "flute"])
@pytest.mark.parametrize("pitch", [57, 64, 69])
def test_pitch(pitch: int, instrument: str) -> None:
    sound = render(one_note(pitch), 22050, Sound(instrument))[2205:22050]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * len(sound)))
    peak = spectrum.argmax() * 22050 / (4 * len(sound))
    # A partial, or the octave below that organs have: a multiple of half the pitch, within a quarter of a semitone.
    halves = peak / (440 * 2 ** ((pitch - 69) / 12) / 2)
    assert round(halves) in (1, 2, 4, 6, 8)
    assert 12 * abs(np.log2(halves / round(halves))) < 0.25


def test_loud_chords_do_not_clip_and_soft_notes_are_heard() -> None:
    cluster = Roll(np.full((128, 4), 127, np.uint8))
    for roll in (cluster, one_note(velocity=1), one_note(length=1)):
        assert np.abs(render(roll, 8000)).max() == pytest.approx(0.9)


def test_time_and_loudness() -> None:
    sound = render(one_note(start=4, length=2), 8000)
    assert not sound[:4000].any()
    assert np.abs(sound[4000:5000]).max() > 0.5
    assert 0 <= np.flatnonzero(np.abs(render(one_note(), 8000)) > 1e-3)[0] < 40  # at once: within 5 ms
    # a quarter of the velocity is a sixteenth of the amplitude
    both = Roll(np.maximum(one_note(60, 120, 0, 1).symbols, one_note(60, 30, 5, 1).symbols))
    sound = np.abs(render(both, 8000))
    assert sound[4000:].max() / sound[:4000].max() == pytest.approx(1 / 16, rel=1e-3)


def test_the_last_note_dies_away_and_does_not_end_at_once() -> None:
    sound = np.abs(render(one_note(), 8000))
    assert 0.2 < sound[8800:9200].max() / sound[7000:8000].max() < 0.9
    assert sound[-80:].max() < 0.01
    early = np.abs(render(one_note(length=2), 8000))
    assert 0.2 < early[2800:3200].max() / early[1000:2000].max() < 0.9
    assert early[4400:].max() == 0


def test_notes_of_several_lengths_and_pitches_are_added() -> None:
    long, short = one_note(60, 90, 0, 8), one_note(64, 90, 2, 3)
    both, first, second = (render(roll, 8000) for roll in (Roll(long.symbols + short.symbols), long, short))
    mixed = np.stack([first, second], 1)
    weights = np.linalg.lstsq(mixed, both, rcond=None)[0]  # each was made as loud as may be
    assert weights.min() > 0.2
    assert mixed @ weights == pytest.approx(both, abs=1e-3)


@pytest.mark.parametrize("steps", [0, 3])
def test_silence(steps: int) -> None:
    sound = render(Roll(np.zeros((128, steps), np.uint8)), 8000)
    assert len(sound) == steps * 1000 + 2400
    assert not sound.any()


def test_notes_that_an_instrument_does_not_have_are_silent() -> None:
    assert not render(one_note(100), 8000, Sound("whistle")).any()


def test_instruments_by_name(tmp_path: Path) -> None:
    names = ("piano", " Church Organ", "organ", "choir", "Gunshot", "acoustic grand piano")
    assert [Sound(name).program for name in names] == [0, 19, 16, 52, 127, 0]
    assert Sound("organ").name == "drawbar organ"
    for name, hint in (("oragn", r"did you mean organ\?"), ("xyzzy", "some are piano, "), ("", "some are piano, ")):
        with pytest.raises(ValueError, match=f"no instrument '{name}'; {hint}"):
            Sound(name)
    with pytest.raises(FileNotFoundError, match=r"sound\.font: there is no file .*none\.sf2"):
        Sound(font=str(tmp_path / "none.sf2"))


def test_a_font_of_ones_own(tmp_path: Path) -> None:
    font = tmp_path / "mine.sf2"
    font.write_bytes(DEFAULT_FONT.read_bytes())
    assert np.array_equal(render(one_note(), 8000, Sound(font=str(font))), render(one_note(), 8000))
    font.write_bytes(b"RIFF1234")
    with pytest.raises(ValueError, match=r"mine\.sf2: no sound font"):
        render(one_note(), 8000, Sound(font=str(font)))


def test_wav(tmp_path: Path) -> None:
    samples = np.array([0, 0.5, -1, 1], np.float32)
    path = write_wav(samples, tmp_path / "a.wav", 8000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        read = np.frombuffer(file.readframes(9), "<i2")
    assert read.tolist() == [0, 16384, -32767, 32767]


@pytest.mark.parametrize("samples", [np.array([1.01]), np.array([np.nan]), np.zeros((2, 2))])
def test_bad_samples(samples: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples"):
        write_wav(samples, tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


def test_bad_rate() -> None:
    with pytest.raises(ValueError, match="rate"):
        render(one_note(), 0)
