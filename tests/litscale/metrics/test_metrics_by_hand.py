"""Overlaps of sets of unequal size and standard errors, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from music_ranks import filled

from litscale.metrics import FeatureStatistics, MusicStatistics
from litscale.metrics.fid import Statistics, frechet_distance
from litscale.metrics.music_statistics import _histogram_overlap
from litscale.metrics.reference import read_reference
from litscale.metrics.standard_error import StandardError
from litscale.music import Roll


def density(number: int) -> Roll:
    """Four steps with so many notes, one after the other."""
    symbols = np.zeros((128, 4), np.uint8)
    symbols[60, :number] = 64
    return Roll(symbols)


def test_overlap_of_sets_of_unequal_size() -> None:
    own, other = filled([density(n) for n in (1, 1, 2, 3)]), filled([density(n) for n in (1, 3, 3)])
    for one, two in ((own, other), (other, own)):
        # the lowest value: 1/2 and 1/3; the middle: 1/4 and 0; the highest: 1/4 and 2/3
        assert one.compare(two)["note_density_histogram_overlap"].item() == pytest.approx(1 / 3 + 1 / 4)
    assert own.compare(other)["note_density_ratio"].item() == pytest.approx((7 / 4) / (7 / 3))


def test_overlap_depends_on_the_bins() -> None:
    own, other = torch.tensor([0.0, 1.0, 3.9, 10.0]), torch.tensor([4.1, 10.0])
    # bins of 10, 5 and 2.5 units; 10 itself falls into the last
    for bins, share in ((1, 1.0), (2, 0.75), (4, 0.25 + 0.25)):
        found = MusicStatistics(bins=bins)
        assert _histogram_overlap(own, other, found.bins).item() == pytest.approx(share)


def test_means_of_undefined_and_zero_statistics() -> None:
    silent = density(0)
    found = filled([silent]).compare(filled([silent, silent]))
    assert found["note_density_ratio"] == 1
    assert found["note_density_histogram_overlap"] == 1
    assert found["polyphony_ratio"].isnan()
    found = filled([density(2)]).compare(filled([silent]))
    assert found["note_density_ratio"].isinf()
    found = filled([silent]).compare(filled([density(2)]))
    assert found["note_density_ratio"] == 0


def test_standard_error_by_hand() -> None:
    error = StandardError()
    # three passes over two canvases: variances 7 and 4, of their means 7/3 and 4/3
    error.update(torch.tensor([[1.0, 10.0], [2.0, 14.0], [6.0, 12.0]]))
    assert error.compute().item() == pytest.approx((11 / 3) ** 0.5 / 2)
    # two passes over one more: variance 2, of its mean 1
    error.update(torch.tensor([[1.0], [3.0]]))
    assert error.compute().item() == pytest.approx((11 / 3 + 1) ** 0.5 / 3)


@pytest.mark.parametrize(("mu", "sigma"), [((3,), (4, 4)), ((4,), (3, 3)), ((3,), (3, 4)), ((3, 1), (3, 3))])
def test_reference_statistics_of_which_one_does_not_fit(tmp_path: Path, mu: tuple, sigma: tuple) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(mu), sigma=np.zeros(sigma))
    with pytest.raises(ValueError, match="use the statistics of the same extractor"):
        read_reference(tmp_path / "a.npz", 3)


def test_a_covariance_by_hand() -> None:
    found = FeatureStatistics(2)
    for rows in ([[1.0, 0.0], [3.0, 4.0]], [[8.0, 2.0]]):
        found.update(torch.tensor(rows))
    statistics = found.compute()
    assert (statistics.mu.tolist(), statistics.count) == ([4.0, 2.0], 3)
    # deviations -3, -1, 4 and -2, 2, 0; divided by 2
    assert statistics.sigma.flatten().tolist() == pytest.approx([13, 2, 2, 4])


def test_the_distance_of_correlated_gaussians_by_hand() -> None:
    """Both covariances have the axes (1, 1) and (1, -1): variances 9 and 1 there, and 4 and 25."""
    first = Statistics(torch.tensor([1.0, 2.0]).double(), torch.tensor([[5.0, 4.0], [4.0, 5.0]]).double())
    second = Statistics(torch.tensor([3.0, 1.0]).double(), torch.tensor([[14.5, -10.5], [-10.5, 14.5]]).double())
    for one, other in ((first, second), (second, first)):
        assert frechet_distance(one, other).item() == pytest.approx(4 + 1 + (3 - 2) ** 2 + (1 - 5) ** 2)
