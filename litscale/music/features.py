"""The features by which papers compare sets of pieces, and how far apart two sets are in each of them.

Features and comparison are those of Yang and Lerch (On the evaluation of generative models in music, Neural Computing
and Applications 32, 2020) and of their program mgeval, on the beat grid instead of in seconds. Dimensions: n notes of a
piece, in the order of their onsets and then of their pitches.
"""

from __future__ import annotations

from collections.abc import Sequence

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
POINTS = 1000  # at which densities are compared


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


def set_distances(generated: Sequence[Roll], data: Sequence[Roll]) -> dict[str, dict[str, float]]:
    """Compute how far generated pieces are from the data in each feature, by relative measures.

    The Euclidean distances of the generated pieces from one another (intra-set) and those of each generated piece from
    each piece of the data (inter-set) are smoothed to densities (Gaussian kernels, Scott's bandwidth).

    Args:
        generated: at least three pieces, each with at least two notes.
        data: at least two pieces, each with at least two notes.

    Returns:
        By feature: ``intra_mean`` and ``intra_std`` of the intra-set distances, ``overlapping_area`` of both densities
        (1 if they are the same) and ``kl_divergence``, D(intra-set || inter-set) of the densities, in nats (0 if they
        are the same). Both are NaN where all distances of one kind are equal, as equal numbers have no density.
        mgeval takes the divergence of densities over two different ranges; here the range is that of all distances.

    Raises:
        ValueError: too few pieces, or a piece with too few notes.
    """
    # scipy takes half a second to import, which programs that only read MIDI files need not wait for
    from scipy.spatial.distance import cdist

    if len(generated) < 3 or len(data) < 2:
        raise ValueError(f"needs 3 generated pieces and 2 of data at least, not {len(generated)} and {len(data)}")
    own, other = ([features(roll) for roll in rolls] for rolls in (generated, data))
    result = {}
    for name in FEATURES:
        ours, theirs = (np.stack([piece[name].ravel() for piece in pieces]) for pieces in (own, other))
        apart = ~np.eye(len(ours), dtype=bool)
        intra, inter = cdist(ours, ours)[apart], cdist(ours, theirs).ravel()
        area, divergence = _compared(intra, inter)
        result[name] = {
            "intra_mean": float(intra.mean()),
            "intra_std": float(intra.std()),
            "overlapping_area": area,
            "kl_divergence": divergence,
        }
    return result


def _compared(intra: np.ndarray, inter: np.ndarray) -> tuple[float, float]:
    """Compute overlapping area and Kullback-Leibler divergence of the densities of two samples of distances."""
    from scipy.special import logsumexp
    from scipy.stats import gaussian_kde

    if np.ptp(intra) == 0 or np.ptp(inter) == 0:
        return float("nan"), float("nan")
    points = np.linspace(min(intra.min(), inter.min()), max(intra.max(), inter.max()), POINTS)
    logs = [gaussian_kde(sample).logpdf(points) for sample in (intra, inter)]
    area = np.trapezoid(np.exp(np.minimum(*logs)), points)
    # both densities scaled to a mass of one over the points, so that no divergence is negative
    own, other = (log - logsumexp(log) for log in logs)
    return float(area), float(np.sum(np.exp(own) * (own - other)))
