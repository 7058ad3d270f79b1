"""Piano rolls as symbol matrices: what a symbol means, and how a roll is held.

Shapes: a roll is ``[pitch, step]``, row 0 the lowest pitch of its format, one column per step of the beat
grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

ENCODINGS = ("binary", "velocity", "onset_hold")
PITCHES = 128


@dataclass(frozen=True)
class RollFormat:
    """What the symbols and rows of a roll mean; enough to turn bare symbols back into notes.

    Args:
        encoding: ``binary`` (0 silence, 1 sounding), ``velocity`` (0 silence, else the sounding note's
            velocity bin; re-struck notes merge) or ``onset_hold`` (0 silence, 1..bins a note starts in that
            velocity bin, bins + 1 it goes on; lossless on the grid).
        steps_per_beat: grid steps per quarter note.
        velocity_bins: number of velocity bins, 1..127; 127 keeps MIDI velocities as they are.
        lowest_pitch: MIDI pitch of row 0.
        pitches: number of rows.
        tempo: quarter notes per minute, used when notes are written or played.
        velocity: MIDI velocity written where the symbols hold none (``binary``).
        beats_per_bar: quarter notes per bar, which may end within a beat: 3 in 3/4 and 6/8, 3.5 in 7/8.

    Raises:
        ValueError: an argument is outside what is listed here; the message names it.
    """

    encoding: str = "onset_hold"
    steps_per_beat: int = 4
    velocity_bins: int = 127
    lowest_pitch: int = 0
    pitches: int = PITCHES
    tempo: float = 120.0
    velocity: int = 80
    beats_per_bar: float = 4.0

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, not {self.encoding!r}")
        if self.steps_per_beat < 1:
            raise ValueError(f"steps_per_beat must be at least 1, not {self.steps_per_beat}")
        if not 1 <= self.velocity_bins <= 127:
            raise ValueError(f"velocity_bins must be in 1..127, not {self.velocity_bins}")
        if self.lowest_pitch < 0 or self.pitches < 1 or self.lowest_pitch + self.pitches > PITCHES:
            raise ValueError(
                f"pitch rows {self.lowest_pitch}..{self.lowest_pitch + self.pitches - 1} are not within 0..127"
            )
        if self.tempo <= 0:
            raise ValueError(f"tempo must be positive, not {self.tempo}")
        if not 1 <= self.velocity <= 127:
            raise ValueError(f"velocity must be in 1..127, not {self.velocity}")
        if not 1 <= self.steps_per_bar < math.inf:
            raise ValueError(
                f"beats_per_bar must be at least 1 step of the grid, not {self.beats_per_bar} quarter notes"
            )

    @property
    def alphabet(self) -> int:
        """Number of symbols, silence included."""
        return {
            "binary": 2,
            "velocity": self.velocity_bins + 1,
            "onset_hold": self.velocity_bins + 2,
        }[self.encoding]

    @property
    def steps_per_bar(self) -> float:
        """Grid steps per bar; not whole where the grid is too coarse for the meter (7/8 on quarter notes)."""
        return self.steps_per_beat * self.beats_per_bar

    @property
    def hold(self) -> int | None:
        """The symbol for a note that continues, in ``onset_hold``; None in the other encodings."""
        return self.velocity_bins + 1 if self.encoding == "onset_hold" else None

    def with_meter(self, beats_per_bar: float | None) -> RollFormat:
        """Return the same format with bars of so many quarter notes; None changes nothing."""
        return self if beats_per_bar is None else replace(self, beats_per_bar=beats_per_bar)

    def cropped(self, low: int, high: int) -> RollFormat:
        """Return the same format over MIDI pitches ``low`` to ``high``, both included."""
        return replace(self, lowest_pitch=low, pitches=high - low + 1)


@dataclass(frozen=True)
class Roll:
    """A piano roll: uint8 symbols ``[pitch, step]`` and the format that gives them meaning."""

    symbols: np.ndarray
    format: RollFormat = field(default_factory=RollFormat)

    def __post_init__(self) -> None:
        if self.symbols.dtype != np.uint8 or self.symbols.ndim != 2:
            raise ValueError(
                f"symbols must be a uint8 matrix [pitch, step], not {self.symbols.dtype} {self.symbols.shape}"
            )
        if self.symbols.shape[0] != self.format.pitches:
            raise ValueError(f"{self.symbols.shape[0]} rows, but the format has {self.format.pitches} pitches")
        if self.symbols.size and int(self.symbols.max()) >= self.format.alphabet:
            raise ValueError(
                f"symbol {int(self.symbols.max())} is outside the {self.format.encoding} alphabet of "
                f"{self.format.alphabet}"
            )

    @property
    def steps(self) -> int:
        """Number of columns."""
        return int(self.symbols.shape[1])
