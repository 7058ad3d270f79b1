"""What a roll is like, in numbers that can be compared between data and samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from litscale.music.notes import notes
from litscale.music.roll import Roll

NAMES = (
    "note_density",
    "polyphony",
    "pitch_range",
    "pitch_classes_used",
    "pitch_class_entropy",
    "scale_consistency",
    "groove_consistency",
    "empty_beat_rate",
    "mean_velocity",
)
DIATONIC = np.array([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1])  # pitch classes of C major, which are those of A minor


def statistics(roll: Roll, beats_per_bar: float | None = None) -> dict[str, float]:
    """Compute statistics of the notes of a roll (see `litscale.music.notes`), in the order of `NAMES`.

    - ``note_density``: notes per quarter note of the whole roll, silence at its ends included. A note that sounds at
      the left edge counts, as if it started there.
    - ``polyphony``: mean number of sounding pitches, over the steps where any sounds.
    - ``pitch_range``: highest minus lowest pitch, in semitones.
    - ``pitch_classes_used``: 0..12.
    - ``pitch_class_entropy``: bits, over the notes, not over their lengths; at most log2(12) = 3.58.
    - ``scale_consistency``: share of the notes within the major or minor scale that fits best.
    - ``groove_consistency``: 1 - the mean share of steps of a bar where it and the next bar differ in having an onset.
      Bars are counted from the first step to the last note's end. Steps that are silent in both count as alike, so
      *sparse music scores high whatever its rhythm*: compare it only between rolls of like density.
    - ``empty_beat_rate``: share of beats without a sounding note, from the first step to the last note's end.
    - ``mean_velocity``: over the notes, 1..127.

    Polyphony to scale consistency are defined as in muspy (arXiv 2008.01951). Its empty beat rate also counts a beat as
    sounding if a note ends as the beat begins, and its groove compares the last bar with an empty one if the last note
    ends at a bar line.

    Args:
        roll: any roll.
        beats_per_bar: quarter notes per bar, for the groove; None is ``roll.format.beats_per_bar``.

    Returns:
        Floats, NaN where undefined: without notes all but ``note_density`` and ``pitch_classes_used``, which are 0;
        ``note_density`` for a roll without steps; ``groove_consistency`` of up to a bar, and where bars are no
        whole number of steps; ``mean_velocity`` of ``binary`` rolls.

    Raises:
        ValueError: bars of ``beats_per_bar`` are shorter than a step.
    """
    steps_per_bar = roll.format.with_meter(beats_per_bar).steps_per_bar
    steps_per_beat = roll.format.steps_per_beat
    played = notes(roll)
    values: dict[str, Any] = dict.fromkeys(NAMES, float("nan"))
    values["pitch_classes_used"] = 0.0
    if roll.steps:
        values["note_density"] = len(played) * steps_per_beat / roll.steps
    if not len(played):
        return values

    sounding = np.count_nonzero(roll.symbols, axis=0)  # pitches at each step
    classes = np.bincount(played["pitch"] % 12, minlength=12)
    shares = classes[classes > 0] / len(played)
    beats = np.add.reduceat(sounding, np.arange(0, played["end"].max(), steps_per_beat))
    values["polyphony"] = sounding.sum() / np.count_nonzero(sounding)
    values["pitch_range"] = np.ptp(played["pitch"])
    values["pitch_classes_used"] = len(shares)
    values["pitch_class_entropy"] = -np.sum(shares * np.log2(shares))
    values["scale_consistency"] = max(np.roll(DIATONIC, root) @ classes for root in range(12)) / len(played)
    values["groove_consistency"] = _groove(played, steps_per_bar)
    values["empty_beat_rate"] = np.mean(beats == 0)
    if roll.format.encoding != "binary":
        values["mean_velocity"] = np.mean(played["velocity"])
    return {name: float(value) for name, value in values.items()}


def _groove(played: np.ndarray, steps_per_bar: float) -> float:
    """Compute 1 - the mean share of steps where a bar and the next one differ in having an onset; see `statistics`."""
    bars = -(-int(played["end"].max()) // steps_per_bar)
    if bars < 2 or not float(steps_per_bar).is_integer():
        return float("nan")
    struck = np.zeros((int(bars), int(steps_per_bar)), dtype=bool)
    struck.flat[played["start"]] = True
    return 1 - float(np.mean(struck[1:] != struck[:-1]))
