"""The baselines are distributions, and fit what they say they fit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from litscale.music import IndependentPitches, RepeatOrRedraw

BASELINES = (IndependentPitches, RepeatOrRedraw)


def random_rolls(alphabet: int, pitches: int = 3, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, alphabet, (pitches, steps)).astype(np.uint8) for steps in (5, 1, 9, 0)]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("alphabet", "hold"), [(2, None), (3, 2), (4, 3)])
def test_probabilities_sum_to_one(baseline: type, alphabet: int, hold: int | None) -> None:
    """Over all rolls of two steps and two pitches: the first column and every transition at once."""
    model = baseline.fit(random_rolls(alphabet, 2), alphabet, hold)
    cells = np.array(list(product(range(alphabet), repeat=4)), np.uint8).reshape(-1, 2, 2)
    nats = np.array([model.nats(roll) for roll in cells])
    assert np.isfinite(nats).all()
    assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("baseline", BASELINES)
def test_nats_per_step(baseline: type) -> None:
    model = baseline.fit(random_rolls(2), 2)
    roll = random_rolls(2, seed=1)[2]
    assert model.nats_per_step(roll) == pytest.approx(model.nats(roll) / 9)
    assert model.nats(roll) == pytest.approx(model.column_nats(roll).sum())
    assert np.isnan(model.nats_per_step(roll[:, :0]))


def test_frequencies_of_each_row() -> None:
    model = IndependentPitches.fit([np.array([[0, 0, 1], [1, 1, 1]], np.uint8)], 2, smoothing=0.5)
    np.testing.assert_allclose(np.exp(model.logp), [[2.5 / 4, 1.5 / 4], [0.5 / 4, 3.5 / 4]])


@pytest.mark.parametrize("hold", [None, 3])
def test_repeat_recovers_the_probability_that_made_the_data(hold: int | None) -> None:
    """Redraws often repeat by chance here; a mere count of repeats would come out near 0.9."""
    rng = np.random.default_rng(0)
    columns = [np.zeros(2, np.uint8)]
    for _ in range(20_000):
        last = columns[-1]
        carried = last if hold is None else np.where(last > 0, hold, 0)
        redrawn = np.where(rng.random(2) < 0.8, 0, rng.integers(0, 4, 2))
        columns.append((carried if rng.random() < 0.6 else redrawn).astype(np.uint8))
    model = RepeatOrRedraw.fit([np.stack(columns, axis=1)], 4, hold)
    assert model.repeat == pytest.approx(0.6, abs=0.03)


def test_what_carries_on_is_likelier() -> None:
    rolls = [np.array([[1, 3, 3, 0, 0, 2, 3], [0, 0, 0, 1, 3, 3, 3]], np.uint8)] * 3
    model = RepeatOrRedraw.fit(rolls, 4, 3)
    start = np.array([[1], [0]], np.uint8)
    follow = {end: model.nats(np.append(start, [[end], [0]], axis=1).astype(np.uint8)) for end in range(4)}
    assert min(follow, key=follow.__getitem__) == 3


def test_a_constant_roll_leaves_room_for_change() -> None:
    model = RepeatOrRedraw.fit([np.zeros((2, 50), np.uint8)], 2)
    assert 0 < model.repeat < 1
    assert np.isfinite(model.nats(np.ones((2, 3), np.uint8)))


@pytest.mark.parametrize("baseline", BASELINES)
def test_bad_rolls(baseline: type) -> None:
    for nothing in ([], [np.zeros((3, 0), np.uint8)]):
        with pytest.raises(ValueError, match="no columns to fit"):
            baseline.fit(nothing, 2)
    with pytest.raises(ValueError, match="rolls of 3 and of 2 pitches"):
        baseline.fit([*random_rolls(2), *random_rolls(2, 2)], 2)
    with pytest.raises(ValueError, match="outside the alphabet of 2"):
        baseline.fit([np.full((2, 2), 2, np.uint8)], 2)
    with pytest.raises(ValueError, match="smoothing"):
        baseline.fit(random_rolls(2), 2, smoothing=0)
    model = baseline.fit(random_rolls(2), 2)
    with pytest.raises(ValueError, match="4 pitches, but the model has 3"):
        model.nats(np.zeros((4, 2), np.uint8))
    with pytest.raises(ValueError, match="outside the alphabet of 2"):
        model.nats(np.full((3, 2), 2, np.uint8))


def test_columns_rarer_than_any_float() -> None:
    roll = np.zeros((128, 40_000), np.uint8)
    roll[:, 20_000] = 1
    model = IndependentPitches.fit([roll], 2)
    assert model.nats(roll[:, 20_000:20_001]) > 1000
    assert np.isfinite(RepeatOrRedraw.fit([roll, roll[:, :500]], 2).nats(roll))
