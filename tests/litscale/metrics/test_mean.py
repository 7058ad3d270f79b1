import math

import torch

from litscale.metrics.mean import Mean


def test_values_weigh_what_they_are_said_to() -> None:
    mean = Mean()
    mean.update(torch.tensor([1.0, 4.0]), torch.tensor([3, 1]))
    assert mean.compute() == 7 / 4
    mean.update(torch.tensor([[2.0], [10.0]]), torch.tensor([[True], [False]]))
    assert mean.compute() == 9 / 5
    mean.update(torch.tensor([6.0, 8.0]))
    assert mean.compute() == 23 / 7
    mean.update(1.0, 2.0)
    assert mean.compute() == 25 / 9


def test_nan_counts_and_weights_of_nothing_count_nothing() -> None:
    mean = Mean()
    mean.update(torch.tensor([5.0, 7.0]), torch.tensor([0.0, 2.0]))
    assert mean.compute() == 7
    mean.update(torch.tensor([math.nan]), torch.tensor([1.0]))
    assert mean.compute().isnan()
