"""Features of pieces and distances of sets, against loops over notes and against sums."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from litscale.music import Roll, RollFormat, features, notes, set_distances
from litscale.music.features import FEATURES, LENGTHS


def random_roll(seed: int, steps: int = 40) -> Roll:
    """Eight pitches that are struck, held and silent at random."""
    random = np.random.default_rng(seed)
    symbols = np.zeros((128, steps), np.uint8)
    symbols[57:65] = random.choice([0, 70, 128], (8, steps), p=[0.5, 0.2, 0.3])
    return Roll(symbols, RollFormat())


def piece() -> Roll:
    """A4 for three steps, then C5 for one and D5 beside it for four; B4 at step 6 for two."""
    symbols = np.zeros((128, 12), np.uint8)
    for pitch, start, length in ((69, 0, 3), (72, 3, 1), (74, 3, 4), (71, 6, 2)):
        symbols[pitch, start] = 70
        symbols[pitch, start + 1 : start + length] = 128
    return Roll(symbols, RollFormat())


def test_a_piece_by_hand() -> None:
    values = features(piece())
    assert tuple(values) == FEATURES
    assert values["pitch_count"] == 4
    assert values["pitch_range"] == 5
    histogram = np.zeros(12)
    histogram[[9, 0, 2, 11]] = 0.3, 0.1, 0.4, 0.2
    assert values["pitch_class_histogram"] == pytest.approx(histogram)
    transitions = np.zeros((12, 12))
    transitions[9, 0] = transitions[9, 2] = 1  # B4 starts before D5 ends
    assert np.array_equal(values["pitch_class_transitions"], transitions)
    lengths = np.zeros(12)
    lengths[[7, 4, 2, 3]] = 1 / 4  # dotted eighth, sixteenth, quarter, eighth
    assert values["note_length_histogram"] == pytest.approx(lengths)
    transitions = np.zeros((12, 12))
    transitions[7, 4] = transitions[4, 2] = transitions[2, 3] = 1
    assert np.array_equal(values["note_length_transitions"], transitions)
    assert values["inter_onset_interval"] == pytest.approx((0.75 + 0 + 0.75) / 3)


def test_a_random_piece_by_loops() -> None:
    played = sorted(notes(random_roll(3)).tolist(), key=lambda note: (note[1], note[0]))
    values = features(random_roll(3))
    transitions, nearest = np.zeros((12, 12)), []
    for pitch, start, end, _ in played:
        nearest.append(min(range(12), key=lambda k: abs((end - start) / 4 - LENGTHS[k])))
        for other, begin, _, _ in played:
            transitions[pitch % 12, other % 12] += begin == end
    assert np.array_equal(values["pitch_class_transitions"], transitions)
    lengths = np.zeros((12, 12))
    for first, second in pairwise(nearest):
        lengths[first, second] += 1
    assert np.array_equal(values["note_length_transitions"], lengths)
    assert values["note_length_histogram"] == pytest.approx([nearest.count(k) / len(nearest) for k in range(12)])


def test_distances_of_sets_by_sums() -> None:
    generated, data = [random_roll(k) for k in range(5)], [random_roll(k, 60) for k in range(10, 14)]
    values = set_distances(generated, data)
    assert tuple(values) == FEATURES
    own, other = ([features(roll)["pitch_class_histogram"] for roll in rolls] for rolls in (generated, data))
    intra = [math.dist(a, b) for i, a in enumerate(own) for j, b in enumerate(own) if i != j]
    inter = [math.dist(a, b) for a in own for b in other]
    result = values["pitch_class_histogram"]
    assert result["intra_mean"] == pytest.approx(np.mean(intra))
    assert result["intra_std"] == pytest.approx(np.std(intra))
    points = np.linspace(min(intra + inter), max(intra + inter), 20001)
    p, q = gaussian_kde(intra)(points), gaussian_kde(inter)(points)
    step = points[1] - points[0]
    assert result["overlapping_area"] == pytest.approx(np.minimum(p, q).sum() * step, rel=1e-3)
    p, q = p / p.sum(), q / q.sum()
    assert result["kl_divergence"] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-2)


def test_sets_far_apart_overlap_little_and_sets_alike_much() -> None:
    generated = [random_roll(k) for k in range(8)]
    near = set_distances(generated, [random_roll(k) for k in range(20, 28)])
    high = [Roll(np.roll(random_roll(k).symbols, 30, axis=0), RollFormat()) for k in range(20, 28)]
    far = set_distances(generated, [Roll(np.repeat(roll.symbols, 3, axis=1), RollFormat()) for roll in high])
    assert near["note_length_transitions"]["overlapping_area"] > 0.7
    assert far["note_length_transitions"]["overlapping_area"] < 0.2
    assert math.isfinite(far["note_length_transitions"]["kl_divergence"])
    assert far["note_length_transitions"]["kl_divergence"] > near["note_length_transitions"]["kl_divergence"]


def test_equal_distances_have_no_density() -> None:
    values = set_distances([piece()] * 3, [random_roll(1), random_roll(2)])
    assert values["pitch_count"]["intra_mean"] == 0
    assert math.isnan(values["pitch_count"]["overlapping_area"])
    assert math.isnan(values["pitch_count"]["kl_divergence"])


def test_too_few_notes_or_pieces() -> None:
    with pytest.raises(ValueError, match="at least two notes to be compared, this one has 0"):
        features(Roll(np.zeros((128, 8), np.uint8), RollFormat()))
    with pytest.raises(ValueError, match="needs 3 generated pieces and 2 of data at least, not 2 and 5"):
        set_distances([piece()] * 2, [piece()] * 5)
