"""Bare symbols as pictures, sound, files and statistics, for those who need not know music."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from litscale.music.audio import PIANO, Sound, load_font, render, write_wav
from litscale.music.meter import signature
from litscale.music.midi import MidiError, read_midi, write_midi
from litscale.music.notes import notes
from litscale.music.pictures import animation, picture
from litscale.music.roll import PITCHES, Roll, RollFormat
from litscale.music.score import new_engraver, write_score
from litscale.music.statistics import statistics

RATE = 22050


class RollRenderer:
    """Shows symbol canvases ``[1, pitch, step]`` of one format.

    Methods that take symbols raise ValueError if they are not uint8, not one channel of the format's pitches, or
    outside of its alphabet.

    Args:
        form: what the symbols mean.
        beats_per_bar: quarter notes per bar, for bar lines and the groove; None is those of ``form``.
        phase: where the grid of files lies that `read` is given; see `music.read_midi`.
        sound: what they are played on.
    """

    def __init__(
        self,
        form: RollFormat,
        beats_per_bar: float | None = None,
        phase: str | float = "auto",
        sound: Sound = PIANO,
    ) -> None:
        self.format = form.with_meter(beats_per_bar)
        self.phase = phase
        self.sound = sound

    @property
    def beats_per_bar(self) -> float:
        """Quarter notes per bar."""
        return self.format.beats_per_bar

    def picture(self, symbols: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Draw symbols.

        Args:
            symbols: uint8 ``[1, pitch, step]``.
            known: bool ``[1, pitch, step]`` (or without the channel), the cells that were given; drawn grey.

        Returns:
            uint8 RGB ``[height, width, 3]``.
        """
        given = None if known is None else _mask(known)
        return picture(self._roll(symbols), known=given)

    def audio(self, symbols: np.ndarray) -> tuple[np.ndarray, int]:
        """Play symbols.

        Args:
            symbols: uint8 ``[1, pitch, step]``.

        Returns:
            float32 ``[n]`` within [-0.9, 0.9], and the samples per second.
        """
        return render(self._roll(symbols), RATE, self.sound), RATE

    def statistics(self, symbols: np.ndarray) -> dict[str, float]:
        """Compute statistics of symbols, uint8 ``[1, pitch, step]``; see `litscale.music.statistics`."""
        return statistics(self._roll(symbols))

    def check(self, wav: bool = False, score: bool = False) -> None:
        """Refuse files that could not be written.

        Raises:
            ModuleNotFoundError: a score is wanted, and verovio is not installed.
            ValueError: sound is wanted, and the sound font cannot be read; or a score, and bars have no time signature.
        """
        if wav:
            load_font(self.sound)
        if score:
            new_engraver()
            if signature(self.beats_per_bar) is None:
                raise ValueError(
                    f"bars of {self.beats_per_bar:g} quarter notes have no time signature: set score to false, or give "
                    "another beats_per_bar"
                )

    def save(
        self,
        symbols: np.ndarray,
        stem: str | Path,
        known: np.ndarray | None = None,
        frames: Sequence[np.ndarray] | None = None,
        wav: bool = False,
        unknown: Sequence[np.ndarray] | None = None,
        score: bool = False,
    ) -> list[Path]:
        """Write ``stem.mid`` and ``stem.png``, and on demand ``stem.gif``, ``stem.wav`` and ``stem.svg``.

        Args:
            symbols: uint8 ``[1, pitch, step]``.
            stem: path without an ending; its folder must exist.
            known: bool ``[1, pitch, step]`` (or without the channel), the cells that were given.
            frames: uint8 ``[1, pitch, step]`` each, the symbols as they came into being, for the GIF.
            wav: also write sound.
            unknown: for each frame, bool ``[1, pitch, step]`` (or without the channel), the cells not made
                yet.
            score: also engrave them, see `litscale.music.write_score`.

        Returns:
            The paths written.

        Raises:
            ModuleNotFoundError: a score is wanted, and verovio is not installed.
            ValueError: a score is wanted of bars without a time signature, or of too long a piece.
            OSError: a file could not be written; the error names it.
        """
        roll, stem = self._roll(symbols), Path(stem)
        given = None if known is None else _mask(known)
        # Not `with_suffix`, which would cut a stem like `temperature_0.9`.
        paths = [write_midi(roll, f"{stem}.mid"), Path(f"{stem}.png")]
        picture(roll, paths[-1], known=given)
        if frames is not None:
            planes = [self._roll(frame).symbols for frame in frames]
            masks = None if unknown is None else [_mask(mask) for mask in unknown]
            paths.append(animation(planes, f"{stem}.gif", self.format, known=given, unknown=masks))
        if wav:
            paths.append(write_wav(render(roll, RATE, self.sound), f"{stem}.wav", RATE))
        if score:
            paths.append(write_score(roll, f"{stem}.svg"))
        return paths

    def read(self, path: str | Path) -> np.ndarray:
        """Read a MIDI file as symbols of this format, as the beginning of a piece, say.

        Args:
            path: a standard MIDI file; read by the rules of `music.read_midi`.

        Returns:
            uint8 ``[1, pitch, step]``.

        Raises:
            FileNotFoundError: there is no such file.
            MidiError: the file cannot be read, or has notes outside of the format's pitches.
        """
        form = self.format
        roll = read_midi(path, form.encoding, form.steps_per_beat, self.phase, velocity_bins=form.velocity_bins)
        low, high = form.lowest_pitch, form.lowest_pitch + form.pitches - 1
        starts = notes(roll)["pitch"]
        outside = int(np.count_nonzero((starts < low) | (starts > high)))
        if outside:
            raise MidiError(
                f"{path}: {outside} notes are outside of the pitches {low} to {high}; widen pitch_range"
                f" (the file needs {starts.min()} to {starts.max()}, MIDI has 0 to {PITCHES - 1})"
            )
        return roll.symbols[None, low : high + 1].copy()

    def _roll(self, symbols: np.ndarray) -> Roll:
        symbols = np.asarray(symbols)
        if symbols.ndim != 3 or len(symbols) != 1:
            raise ValueError(f"symbols must be of shape [1, pitch, step], not {list(symbols.shape)}")
        return Roll(symbols[0], self.format)


def _mask(mask: np.ndarray) -> np.ndarray:
    """Return a mask ``[1, pitch, step]`` or ``[pitch, step]`` as bool ``[pitch, step]``."""
    mask = np.asarray(mask).astype(bool)
    return mask[0] if mask.ndim == 3 else mask
