"""Means over rolls, merged and compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from music_ranks import filled, random_rolls, rank
from torch import multiprocessing

from litscale.metrics import MusicStatistics
from litscale.music import Roll, RollFormat, statistics
from litscale.music.statistics import NAMES


def test_means() -> None:
    rolls = random_rolls(3, 0)
    found = filled(rolls[:1], rolls[1:]).compute()
    assert tuple(found) == NAMES
    for name in NAMES:
        assert found[name].item() == pytest.approx(np.mean([statistics(roll)[name] for roll in rolls]), rel=1e-5)


def test_each_roll_is_measured_in_its_own_meter() -> None:
    symbols = np.zeros((128, 48), np.uint8)
    symbols[60, [0, 8, 12, 20, 24, 32, 36, 44]] = 64  # bars of 12 steps are alike, of 16 differ in three
    three, four = Roll(symbols, RollFormat(beats_per_bar=3)), Roll(symbols)
    assert filled([three]).compute()["groove_consistency"].item() == 1
    assert filled([three, three, four]).compute()["groove_consistency"].item() == pytest.approx(1 - 6 / 32 / 3)
    forced = MusicStatistics(beats_per_bar=3)
    forced.update([four])
    assert forced.compute()["groove_consistency"].item() == 1


def test_undefined_values_are_left_out() -> None:
    silent = Roll(np.zeros((128, 32), np.uint8))
    rolls = random_rolls(1, 0)
    found = filled([*rolls, silent]).compute()
    assert found["polyphony"].item() == pytest.approx(statistics(rolls[0])["polyphony"])
    assert found["note_density"].item() == pytest.approx(statistics(rolls[0])["note_density"] / 2)
    assert filled([silent]).compute()["polyphony"].isnan()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen() -> None:
    assert all(value.isnan() for value in MusicStatistics().compute().values())
    assert all(value.isnan() for value in MusicStatistics().compare(filled(random_rolls(1, 0))).values())


def test_two_halves_merged_are_the_whole() -> None:
    rolls, reference = random_rolls(4, 0), filled(random_rolls(4, 1))
    half, whole = filled(rolls[:1]), filled(rolls)
    half.merge_state(filled(rolls[1:]))
    for one, other in ((half.compute(), whole.compute()), (half.compare(reference), whole.compare(reference))):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], equal_nan=True)


def test_reset() -> None:
    metric = filled(random_rolls(2, 0))
    metric.reset()
    metric.update(random_rolls(1, 1))
    torch.testing.assert_close(metric.compute()["polyphony"], filled(random_rolls(1, 1)).compute()["polyphony"])


def test_the_same_rolls_overlap_fully() -> None:
    found = filled(random_rolls(5, 0)).compare(filled(random_rolls(5, 0)))
    for name in NAMES:
        assert found[f"{name}_ratio"].item() == pytest.approx(1)
        assert found[f"{name}_histogram_overlap"].item() == pytest.approx(1)


def test_rolls_of_other_density_do_not_overlap() -> None:
    sparse, dense = filled(random_rolls(5, 0, 0.01)), filled(random_rolls(5, 0, 0.2))
    found = sparse.compare(dense)
    assert found["note_density_histogram_overlap"] == 0
    assert found["note_density_ratio"].item() == pytest.approx(0.05, abs=0.02)
    torch.testing.assert_close(dense.compare(sparse)["note_density_ratio"], 1 / found["note_density_ratio"])


def test_overlap_by_hand() -> None:
    """Densities 1, 1, 2, 3 and 1, 3, 3, 3: a quarter each of the lowest and the highest value is shared."""

    def density(number: int) -> Roll:
        symbols = np.zeros((128, 4), np.uint8)
        symbols[60, :number] = 64
        return Roll(symbols, RollFormat())

    found = filled([density(n) for n in (1, 1, 2, 3)]).compare(filled([density(n) for n in (1, 3, 3, 3)]))
    assert found["note_density_histogram_overlap"].item() == pytest.approx(0.5)
    assert found["note_density_ratio"].item() == pytest.approx(1.75 / 2.5)
    # Constants: the same pitch range of 0 on both sides.
    assert found["pitch_range_histogram_overlap"] == 1
    assert found["pitch_range_ratio"] == 1


def test_binary_rolls_have_no_velocity_to_compare() -> None:
    binary = filled([Roll(np.ones((128, 4), np.uint8), RollFormat("binary"))])
    found = binary.compare(filled(random_rolls(1, 0)))
    assert math.isnan(found["mean_velocity_ratio"])
    assert math.isnan(found["mean_velocity_histogram_overlap"])


def test_bins_must_be_positive() -> None:
    with pytest.raises(ValueError, match="bins"):
        MusicStatistics(bins=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_ranks_see_the_same_numbers_as_one_process(tmp_path: object) -> None:
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(rank, (f"{tmp_path}/rendezvous", results), nprocs=2)
        ranks = [dict(results[number]) for number in range(2)]
    own, reference = filled(random_rolls(3, 0)), filled(random_rolls(1, 5), random_rolls(2, 6))
    expected = {name: value.item() for name, value in {**own.compute(), **own.compare(reference)}.items()}
    assert ranks[0] == pytest.approx(expected, nan_ok=True)
    assert ranks[1] == pytest.approx(expected, nan_ok=True)
