"""Bars: how long they are in a piece whose time signatures change, and which signature says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

USUAL = 4.0  # quarter notes of a bar, where nothing is stated
SHORTEST = 1.0  # quarter notes; no longer bars count beats rather than bars (most of POP909's files say 1/4)
DENOMINATORS = (4, 8, 16, 32, 64)


def longest_lasting(signatures: Sequence[tuple[float, int, int]], end: float) -> float:
    """Find the meter that most of a piece is in.

    Bars of equal length count as one meter, whatever their beats: 6/8 is 3/4. Where nothing is stated, as before the
    first signature, or a bar of a quarter note or less, bars are 4/4.

    Args:
        signatures: time, numerator and denominator, sorted by time; of several at one time the last counts.
        end: time of the piece's end, in the same unit.

    Returns:
        Quarter notes per bar; if several meters last equally long, those of the first one.
    """
    lasts: dict[float, float] = defaultdict(float)
    starts = [max(time, 0) for time, _, _ in signatures]
    bars = [_bar(numerator, denominator) for _, numerator, denominator in signatures]
    if not starts or starts[0] > 0:
        starts, bars = [0, *starts], [USUAL, *bars]
    for start, following, bar in zip(starts, [*starts[1:], end], bars, strict=True):
        lasts[bar] += max(0, min(following, end) - start)
    return max(lasts, key=lasts.__getitem__)


def signature(beats_per_bar: float) -> tuple[int, int] | None:
    """Return the time signature with the fewest parts for bars of a length, such as (7, 8) for 3.5 quarter notes.

    Returns:
        Numerator and denominator, or None if there is none that MIDI can hold.
    """
    for denominator in DENOMINATORS:
        numerator = beats_per_bar * denominator / 4
        if numerator.is_integer() and 1 <= numerator <= 255:
            return int(numerator), denominator
    return None


def _bar(numerator: int, denominator: int) -> float:
    """Return the quarter notes of a bar, 4 if the signature says nothing about bars."""
    quarters = 4 * numerator / denominator
    return quarters if quarters > SHORTEST else USUAL
