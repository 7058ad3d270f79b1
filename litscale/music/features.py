"""The features of a piece by which papers compare sets of pieces.

They are those of Yang and Lerch (On the evaluation of generative models in music, Neural Computing and Applications 32,
2020) and of their program mgeval, on the beat grid instead of in seconds. Dimensions: n notes of a piece, in the order
of their onsets and then of their pitches.
"""

from __future__ import annotations

import numpy as np

from litscale.music.notes import notes
from litscale.music.roll import Roll

FEATURES = (
    "pitch_count",
    "pitch_range",
    "pitch_class_histogram",
    "pitch_class_transitions",
    "note_length_histogram",
    "note_length_transitions",
    "inter_onset_interval",
)
LENGTHS = np.array([4, 2, 1, 1 / 2, 1 / 4, 3, 3 / 2, 3 / 4, 3 / 8, 4 / 3, 2 / 3, 1 / 3])  # in quarter notes
LEAST_NOTES = 2  # of a piece with features


def features(roll: Roll) -> dict[str, np.ndarray]:
    """Compute the features of a piece, under the names and in the order of `FEATURES`.

    - ``pitch_count``: number of different pitches, ``[]``.
    - ``pitch_range``: highest minus lowest pitch in semitones, ``[]``.
    - ``pitch_class_histogram``: share of each pitch class in the sounding time, ``[12]``. mgeval also weighs each note
      by its velocity.
    - ``pitch_class_transitions``: ``[12, 12]``, entry (i, j) is the number of pairs of a note of class i and one of
      class j that starts at the step where the first one ends. mgeval allows 50 ms between them.
    - ``note_length_histogram``: share of the notes whose length is nearest to each of `LENGTHS`, ``[12]``: whole to
      sixteenth, dotted half to dotted sixteenth, triplets of half to eighth.
    - ``note_length_transitions``: ``[12, 12]``, number of pairs of neighbouring notes with these lengths.
    - ``inter_onset_interval``: mean distance of neighbouring onsets in quarter notes, ``[]``, 0 between the notes of a
      chord.

    Args:
        roll: any roll.

    Returns:
        float64 arrays of the shapes above.

    Raises:
        ValueError: the roll has fewer than two notes.
    """
    played = np.sort(notes(roll), order=["start", "pitch"])
    if len(played) < LEAST_NOTES:
        raise ValueError(f"a piece needs at least two notes to be compared, this one has {len(played)}")
    pitch, start, end = played["pitch"], played["start"], played["end"]
    classes = pitch % 12
    follows = end[:, None] == start[None]  # [n, n]
    member = np.eye(12)[classes]  # [n, 12]
    quarters = (end - start) / roll.format.steps_per_beat
    length = np.eye(12)[np.abs(quarters[:, None] - LENGTHS).argmin(1)]  # [n, 12]
    values = (
        len(np.unique(pitch)),
        np.ptp(pitch),
        np.bincount(classes, end - start, minlength=12) / (end - start).sum(),
        member.T @ follows @ member,
        length.mean(0),
        length[:-1].T @ length[1:],
        np.diff(start).mean() / roll.format.steps_per_beat,
    )
    return {name: np.asarray(value, dtype=np.float64) for name, value in zip(FEATURES, values, strict=True)}
