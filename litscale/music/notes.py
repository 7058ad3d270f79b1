"""Notes on the grid: reading them off a roll, painting them into one.

A note array is a structured array ``[n]`` of dtype `NOTE`; ``start`` and ``end`` are in steps (``end``
exclusive), ``velocity`` is a MIDI velocity 1..127.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from litscale.music.roll import Roll, RollFormat

NOTE = np.dtype([("pitch", np.int64), ("start", np.int64), ("end", np.int64), ("velocity", np.int64)])


def velocity_to_bin(velocity: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin ``ceil(velocity * bins / 127)`` of each MIDI velocity.

    Args:
        velocity: integers 1..127, any shape.
        bins: number of bins, 1..127.

    Returns:
        Integers 1..bins, same shape.
    """
    return -(-velocity * bins // 127)


def bin_to_velocity(velocity_bin: np.ndarray, bins: int) -> np.ndarray:
    """Return the MIDI velocity in the middle of each bin (the upper one of two), so that its bin is the one given.

    Args:
        velocity_bin: integers 1..bins, any shape.
        bins: number of bins, 1..127.

    Returns:
        Integers 1..127, same shape.
    """
    lowest = (velocity_bin - 1) * 127 // bins + 1
    highest = velocity_bin * 127 // bins
    return (lowest + highest + 1) // 2


def _continues(roll: Roll) -> np.ndarray:
    """Return where a cell carries on the note of the cell before it, bool ``[pitch, step]``."""
    symbols = roll.symbols
    before = np.zeros_like(symbols)
    before[:, 1:] = symbols[:, :-1]
    if roll.format.hold is None:
        return (symbols > 0) & (symbols == before)
    return (symbols == roll.format.hold) & (before > 0)


def notes(roll: Roll) -> np.ndarray:
    """Return the notes of a roll.

    ``onset_hold``: a note runs from its onset over the holds after it; a hold with nothing before it to hold
    (a model can sample one) starts a note in the bin of ``format.velocity``. ``binary``: a run of sounding cells is one
    note of ``format.velocity``. ``velocity``: a run of one bin is one note.

    Args:
        roll: any roll.

    Returns:
        Structured array ``[n]`` of `NOTE`, sorted by start, then pitch.
    """
    symbols, form = roll.symbols, roll.format
    continues = _continues(roll)
    # One closing column per row, so that a note at the right edge ends there and not in the next row.
    width = roll.steps + 1
    breaks = np.flatnonzero(np.pad(~continues, ((0, 0), (0, 1)), constant_values=True))
    row, start = np.nonzero((symbols > 0) & ~continues)
    end = breaks[np.searchsorted(breaks, row * width + start, side="right")] - row * width
    symbol = symbols[row, start].astype(np.int64)

    result = np.empty(len(row), NOTE)
    result["pitch"] = row + form.lowest_pitch
    result["start"], result["end"] = start, end
    if form.encoding == "binary":
        result["velocity"] = form.velocity
    else:
        usual = velocity_to_bin(np.array(form.velocity), form.velocity_bins)
        struck = np.where(symbol > form.velocity_bins, usual, symbol)
        result["velocity"] = bin_to_velocity(struck, form.velocity_bins)
    return result[np.lexsort((result["pitch"], result["start"]))]


def repair(roll: Roll) -> Roll:
    """Return the canonical roll with the same notes.

    A hold that holds nothing becomes an onset in the bin of ``format.velocity``. A roll is canonical when ``repair``
    returns equal symbols; ``binary`` and ``velocity`` rolls always are.

    Args:
        roll: any roll; it is not changed.

    Returns:
        A roll of the same size and format.
    """
    if roll.format.hold is None:
        return roll
    orphan = (roll.symbols == roll.format.hold) & ~_continues(roll)
    onset = velocity_to_bin(np.array(roll.format.velocity), roll.format.velocity_bins)
    return replace(roll, symbols=np.where(orphan, onset, roll.symbols).astype(np.uint8))


def without_overlaps(played: np.ndarray) -> np.ndarray:
    """Shorten or drop notes so that one sounds at a time on each pitch, as a roll can hold it.

    A later onset ends the note that sounds. Of several notes with one pitch and onset the loudest stays, and
    of equally loud ones the longest.

    Args:
        played: structured array ``[n]`` of `NOTE`, any order.

    Returns:
        Structured array ``[m]`` of `NOTE`, ``m <= n``, sorted by pitch, then start.
    """
    played = played[np.lexsort((played["end"], played["velocity"], played["start"], played["pitch"]))]
    same_pitch = played["pitch"][1:] == played["pitch"][:-1]
    superseded = np.zeros(len(played), dtype=bool)
    superseded[:-1] = same_pitch & (played["start"][1:] == played["start"][:-1])
    played = played[~superseded]
    same_pitch = played["pitch"][1:] == played["pitch"][:-1]
    following = np.where(same_pitch, played["start"][1:], played["end"][:-1])
    played["end"][:-1] = np.minimum(played["end"][:-1], following)
    return played


def paint(played: np.ndarray, form: RollFormat, steps: int) -> Roll:
    """Convert notes to a roll; overlaps are resolved as in `without_overlaps`.

    Args:
        played: structured array ``[n]`` of `NOTE`, each at least one step long, within the pitches of
            ``form`` and within ``0..steps``.
        form: the format of the roll.
        steps: number of columns.

    Returns:
        A canonical roll ``[form.pitches, steps]``.

    Raises:
        ValueError: a note lies outside the roll.
    """
    played = without_overlaps(played)
    row, start, end = played["pitch"] - form.lowest_pitch, played["start"], played["end"]
    if len(played) and (row.min() < 0 or row.max() >= form.pitches or start.min() < 0 or end.max() > steps):
        raise ValueError(f"notes outside the roll of {form.pitches} pitches and {steps} steps")
    value = velocity_to_bin(played["velocity"], form.velocity_bins)
    filled = {
        "binary": np.ones_like(value),
        "velocity": value,
        "onset_hold": np.full_like(value, form.hold or 0),
    }
    # Differences along time: each cell is the sum of what started and ended before it. Notes of one pitch do
    # not overlap any more, but one may start where another ends, hence `add.at`.
    edges = np.zeros((form.pitches, steps + 1), dtype=np.int16)
    np.add.at(edges, (row, start), filled[form.encoding].astype(np.int16))
    np.subtract.at(edges, (row, end), filled[form.encoding].astype(np.int16))
    symbols = np.cumsum(edges[:, :steps], axis=1, dtype=np.int16).astype(np.uint8)
    if form.hold is not None:
        symbols[row, start] = value
    return Roll(symbols, form)
