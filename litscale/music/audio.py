"""Sound of rolls, from sines alone: no sound fonts, no other programs."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from litscale.music.notes import notes
from litscale.music.roll import Roll
from litscale.storage.files import write_atomically

PARTIALS = 8
ATTACK, RELEASE = 0.004, 0.12  # seconds
PEAK = 0.9


def render(roll: Roll, rate: int = 22050) -> np.ndarray:
    """Play a roll on a simple struck string.

    A note is a sum of up to eight partials below half the rate, each dying away faster than the one below it,
    with a short attack and release; louder notes are also brighter.

    Args:
        roll: any roll; its notes are those of `litscale.music.notes`, its speed is ``format.tempo``.
        rate: samples per second.

    Returns:
        float32 ``[n]``, the length of the roll and 0.12 s for the last note to die away. The highest absolute
        value is 0.9, so it never clips; all zeros for a roll without notes.

    Raises:
        ValueError: ``rate`` is below 1.
    """
    if rate < 1:
        raise ValueError(f"rate must be at least 1, not {rate}")
    seconds = 60 / roll.format.tempo / roll.format.steps_per_beat
    release = int(RELEASE * rate)
    sound = np.zeros(round(roll.steps * seconds * rate) + release, dtype=np.float64)
    played = notes(roll)
    fall = np.cos(np.linspace(0, np.pi / 2, release)) ** 2
    rise = np.sin(np.linspace(0, np.pi / 2, max(1, int(ATTACK * rate)))) ** 2
    for pitch in np.unique(played["pitch"]):
        struck = played[played["pitch"] == pitch]
        longest = round(int((struck["end"] - struck["start"]).max()) * seconds * rate) + 1 + release
        low, high = _string(int(pitch), longest, rate)
        for note in struck:
            start, end = round(note["start"] * seconds * rate), round(note["end"] * seconds * rate)
            loudness = note["velocity"] / 127
            tone = loudness**1.5 * (low[: end - start + release] + loudness * high[: end - start + release])
            attack = min(len(rise), len(tone))
            tone[:attack] *= rise[:attack]
            tone[len(tone) - release :] *= fall
            sound[start : start + len(tone)] += tone
    peak = np.abs(sound).max(initial=0.0)
    return (sound * (PEAK / peak if peak > 0 else 0.0)).astype(np.float32)


def write_wav(samples: np.ndarray, path: str | Path, rate: int = 22050) -> Path:
    """Write sound as a WAV file: one channel, 16 bits.

    Args:
        samples: float ``[n]`` in [-1, 1].
        path: where the file goes; it is there whole, or not at all.
        rate: samples per second.

    Returns:
        The path written.

    Raises:
        ValueError: samples of another shape, or outside [-1, 1], which would clip.
        OSError: the file could not be written; the error names it.
    """
    if samples.ndim != 1:
        raise ValueError(f"samples must be of shape [n], not {samples.shape}")
    if not np.all(np.abs(samples) <= 1):
        raise ValueError("samples outside [-1, 1] would clip")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return write_atomically(path, buffer.getvalue())


def _string(pitch: int, length: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The two lowest partials and the rest of a struck string, each float64 ``[length]``."""
    time = np.arange(length) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    # Short strings are silent sooner: about 3.5 s at C2, 0.5 s at C7.
    decay = 1.2 * 2 ** ((pitch - 60) / 22)
    parts = np.zeros((2, length))
    for partial in range(1, PARTIALS + 1):
        if partial * frequency < rate / 2:
            weight = np.exp(-decay * (0.6 + 0.4 * partial) * time) / partial**1.3
            parts[int(partial > 2)] += weight * np.sin(2 * np.pi * partial * frequency * time)
    return parts[0], parts[1]
