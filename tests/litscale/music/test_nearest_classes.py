"""The nearest class by hand."""

from __future__ import annotations

import numpy as np
import pytest

from litscale.music import Roll, RollFormat, features, nearest_classes
from litscale.music.features import FEATURES


def piece(**values: object) -> dict[str, np.ndarray]:
    return {name: np.array(value, dtype=np.float64) for name, value in values.items()}


def test_the_nearest_mean_of_unequal_classes() -> None:
    """The means are 2 and 10, so 6 is between them; 7 is between the nearest pieces."""
    data = [piece(x=x, y=[[y, 7]]) for x, y in ((0, 0), (10, 2), (2, 0), (4, 6))]
    # the classes have the same mean of y; the second cell of y does not vary, and may be anything
    pieces = [piece(x=5.9, y=[[1, 700]]), piece(x=6.1, y=[[3, -700]]), piece(x=-80, y=[[2, 7]])]
    found = nearest_classes(pieces, data, [1, 4, 1, 1])
    assert found.dtype == np.int64
    assert found.tolist() == [1, 4, 1]


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_feature_weighs_the_same_whatever_its_size_and_unit(unit: float) -> None:
    """Deviations are 1 unit; the second class is nearer if the sum of x and y is above 2 units."""

    def of(x: float, y: float) -> dict[str, np.ndarray]:
        return piece(x=x, y=unit * np.array([y, y, y, 5]))

    pieces = [of(1.8, 0.1), of(1.8, 0.3), of(0.1, 1.8), of(0.3, 1.8)]
    assert nearest_classes(pieces, [of(0, 0), of(2, 2)], [3, 2]).tolist() == [3, 2, 3, 2]


def test_a_distance_is_in_standard_deviations_of_all_data() -> None:
    """The standard deviation of x is 5, and that of y 0.5."""
    data = [piece(x=0, y=0), piece(x=0, y=0), piece(x=10, y=1), piece(x=10, y=1)]
    pieces = [piece(x=6, y=0.3), piece(x=4, y=0.7), piece(x=6, y=0.5)]
    # squares of gaps over deviations: 1.44 + 0.36 and 0.64 + 1.96; 0.64 + 1.96 and 1.44 + 0.36; 1.44 + 1 and 0.64 + 1
    assert nearest_classes(pieces, data, [0, 0, 1, 1]).tolist() == [0, 1, 1]


def test_equally_near_classes_and_no_variance() -> None:
    data = [piece(x=0.1), piece(x=0.1), piece(x=0.1)]
    assert nearest_classes([piece(x=3)], data, [5, 2, 2]).tolist() == [2]
    assert nearest_classes([piece(x=3)], data[:1], [5]).tolist() == [5]
    assert nearest_classes([], data, [5, 2, 2]).tolist() == []


def test_features_of_rolls() -> None:
    """Pieces of eight notes, which are short and close in one class, long and far apart in the other."""

    def played(length: int, interval: int, first: int) -> dict[str, np.ndarray]:
        symbols = np.zeros((128, 8 * length), np.uint8)
        for number in range(8):
            pitch, start = first + interval * (number * number % 5), number * length
            symbols[pitch, start], symbols[pitch, start + 1 : start + length] = 70, 128
        return features(Roll(symbols, RollFormat()))

    data = [played(2, 1, first) for first in range(60, 65)] + [played(8, 3, first) for first in (61, 63)]
    assert tuple(data[0]) == FEATURES
    found = nearest_classes([played(8, 3, 70), played(2, 1, 50), played(8, 2, 60)], data, [1] * 5 + [0] * 2)
    assert found.tolist() == [0, 1, 0]


@pytest.mark.parametrize("labels", [[], [0], [0, -1], [[0, 1]]])
def test_each_of_the_data_needs_a_class(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"at least 0; there are 2 pieces with the classes \["):
        nearest_classes([], [piece(x=1), piece(x=2)], labels)
    with pytest.raises(ValueError, match="there are 0 pieces"):
        nearest_classes([], [], [])
