"""Sound: as long as the roll, at the right pitch, never clipping."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from litscale.music import Roll, RollFormat, render, write_wav


def one_note(pitch: int = 69, velocity: int = 100, start: int = 0, length: int = 8, steps: int = 8) -> Roll:
    symbols = np.zeros((128, steps), np.uint8)
    symbols[pitch, start : start + length] = 128
    symbols[pitch, start] = velocity
    return Roll(symbols, RollFormat())


def test_length_and_type() -> None:
    sound = render(one_note(), 8000)
    assert sound.dtype == np.float32
    assert sound.shape == (8000 + 960,)


@pytest.mark.parametrize("pitch", [45, 69, 93])
def test_pitch(pitch: int) -> None:
    sound = render(one_note(pitch), 22050)[:22050]
    peak = np.abs(np.fft.rfft(sound)).argmax()
    assert peak == pytest.approx(440 * 2 ** ((pitch - 69) / 12), abs=3)


def test_loud_chords_do_not_clip_and_soft_notes_are_heard() -> None:
    cluster = Roll(np.full((128, 4), 127, np.uint8))
    for roll in (cluster, one_note(velocity=1), one_note(length=1)):
        assert np.abs(render(roll, 8000)).max() == pytest.approx(0.9)


def test_time_and_loudness() -> None:
    sound = render(one_note(start=4, length=2), 8000)
    assert not sound[:4000].any()
    assert np.abs(sound[4000:5000]).max() > 0.5
    both = Roll(np.maximum(one_note(60, 120, 0, 2).symbols, one_note(60, 30, 4, 2).symbols))
    sound = np.abs(render(both, 8000))
    assert sound[4000:].max() < 0.5 * sound[:4000].max()


@pytest.mark.parametrize("steps", [0, 3])
def test_silence(steps: int) -> None:
    sound = render(Roll(np.zeros((128, steps), np.uint8)), 8000)
    assert len(sound) == steps * 1000 + 960
    assert not sound.any()


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
