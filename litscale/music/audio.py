"""Sound of rolls, played on the sampled instruments of a sound font."""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pretty_midi
from pretty_midi.constants import INSTRUMENT_MAP

from litscale.music.notes import notes
from litscale.music.roll import Roll
from litscale.music.sound_fonts import with_root_keys
from litscale.storage.files import write_atomically

INSTRUMENTS = [name.lower() for name in INSTRUMENT_MAP]  # of General MIDI, by program
DEFAULT_FONT = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
RELEASE = 0.3  # seconds in which a note dies away
PEAK = 0.9
LOUDEST = 127
TICKS = 100  # per second, of what symusic is given
QUALITY = 4  # of symusic's interpolation between samples


@dataclass(frozen=True)
class Sound:
    """The instrument and the sound font with which rolls are played.

    Args:
        instrument: a name of General MIDI, such as "church organ", or a part of one, of which the first that has it is
            taken: piano, choir, organ, strings.
        font: a sound font (.sf2 or .sf3); null = the small one that comes with pretty_midi.

    Raises:
        ValueError: there is no such instrument.
        FileNotFoundError: there is no such font.
    """

    instrument: str = "piano"
    font: str | None = None

    def __post_init__(self) -> None:
        _ = self.program  # checks the instrument
        if not self.path.is_file():
            raise FileNotFoundError(f"sound.font: there is no file {self.path}")

    @cached_property
    def program(self) -> int:
        """The number of the instrument, 0..127."""
        asked = self.instrument.strip().lower()
        if asked in INSTRUMENTS:
            return INSTRUMENTS.index(asked)
        having = [number for number, name in enumerate(INSTRUMENTS) if asked in name]
        if not asked or not having:
            words = sorted({word for name in INSTRUMENTS for word in name.split() if word.isalpha()})
            similar = get_close_matches(asked, [*INSTRUMENTS, *words], n=1)
            hint = f"did you mean {similar[0]}?" if similar else "some are piano, church organ, violin and choir"
            raise ValueError(f"sound.instrument: General MIDI has no instrument {self.instrument!r}; {hint}")
        return having[0]

    @property
    def name(self) -> str:
        """The whole name of the instrument, in small letters."""
        return INSTRUMENTS[self.program]

    @property
    def path(self) -> Path:
        """The path of the font."""
        return DEFAULT_FONT if self.font is None else Path(self.font).expanduser()


PIANO = Sound()


def render(roll: Roll, rate: int = 22050, sound: Sound = PIANO) -> np.ndarray:
    """Play a roll.

    Args:
        roll: any roll; its notes are those of `litscale.music.notes`, its speed is ``format.tempo``.
        rate: samples per second.
        sound: instrument and sound font.

    Returns:
        float32 ``[n]``, the length of the roll and 0.3 s for the last notes to die away. The highest absolute value is
        0.9, so it never clips; all zeros for a roll without notes that the instrument has.

    Raises:
        ValueError: ``rate`` is below 1, or the font cannot be read.
    """
    if rate < 1:
        raise ValueError(f"rate must be at least 1, not {rate}")
    seconds = 60 / roll.format.tempo / roll.format.steps_per_beat
    release = round(RELEASE * rate)
    fall = np.cos(np.linspace(0, np.pi / 2, release)) ** 2
    result = np.zeros(round(roll.steps * seconds * rate) + release)
    played = notes(roll)
    for pitch in np.unique(played["pitch"]).tolist():
        # 1. the longest note of a pitch, from which the others are cut
        struck = played[played["pitch"] == pitch]
        longest = float((struck["end"] - struck["start"]).max()) * seconds + RELEASE
        tone = _tone(sound, rate, pitch, longest)
        # 2. each note, as loud as sound fonts ask by default, and dying away behind its end
        for note in struck:
            start, end = round(note["start"] * seconds * rate), round(note["end"] * seconds * rate)
            part = tone[: end - start + release] * (note["velocity"] / 127) ** 2
            part[end - start :] *= fall
            result[start : start + len(part)] += part
    peak = np.abs(result).max(initial=0.0)
    return (result * (PEAK / peak if peak > 0 else 0.0)).astype(np.float32)


def _tone(sound: Sound, rate: int, pitch: int, seconds: float) -> np.ndarray:
    """Play one note of at least so many seconds, both channels mixed to one, float ``[n]``.

    It stops abruptly at its end and is equally loud at each velocity, as symusic heeds neither release nor velocity.
    """
    # symusic takes half a second to import, which programs that play nothing need not wait for
    from symusic import Note, Score, Tempo, Track

    track: Any = Track(program=sound.program, is_drum=False)  # of ticks, as the score is; its type does not say so
    track.notes.append(Note(0, math.ceil(seconds * TICKS) + TICKS, pitch, LOUDEST))
    score: Any = Score(TICKS)
    score.tracks.append(track)
    score.tempos.append(Tempo(0, qpm=60))
    synthesizer = load_font(sound, rate)
    return np.nan_to_num(np.asarray(synthesizer.render(score, stereo=True)).mean(0), nan=0, posinf=0, neginf=0)


def load_font(sound: Sound, rate: int = 22050) -> Any:
    """Read the font of a sound, unless it is the last one that was read; raises ValueError if it is damaged."""
    path = sound.path.resolve()
    return _synthesizer(path, path.stat().st_mtime_ns, rate)


@lru_cache(maxsize=2)
def _synthesizer(path: Path, changed: int, rate: int) -> Any:
    """Return a synthesizer for a font; ``changed``, the file's time of change, makes a replaced file be read again."""
    from symusic import Synthesizer

    try:
        font = with_root_keys(path.read_bytes())
        with TemporaryDirectory(prefix="litscale-") as folder:
            copy = Path(folder, path.name)
            copy.write_bytes(font)
            return Synthesizer(str(copy), rate, QUALITY)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


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
