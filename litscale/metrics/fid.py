"""The Frechet distance between two sets of features, FID where the features are Inception's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Statistics(NamedTuple):
    """Mean and covariance of features, as files of reference statistics hold them.

    Attributes:
        mu: The mean, float64 ``[D]``.
        sigma: The unbiased covariance, float64 ``[D, D]``.
        count: The number of images, if it is known.
    """

    mu: Tensor
    sigma: Tensor
    count: int | None = None  # type: ignore[assignment]  # in place of the tuple's method, which is not used


class FeatureStatistics(Metric):
    """Mean and covariance of features, computed from float64 sums over batches and ranks.

    Args:
        num_features: Number of features D.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, num_features: int, **kwargs: object) -> None:
        # A result must not come from the cache of torchmetrics, as a reference may be set after it was computed.
        super().__init__(compute_with_cache=False, **kwargs)
        size = num_features
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add features, ``[B, D]``."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(dim=0)
        self.outer += features.T @ features

    def compute(self) -> Statistics:
        """Return mean and covariance.

        Raises:
            ValueError: fewer than two images were added.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"a covariance needs at least 2 images, not {count}")
        mu = self.total / count
        return Statistics(mu, (self.outer - count * torch.outer(mu, mu)) / (count - 1), count)


class FrechetDistance(FeatureStatistics):
    """Frechet distance of features to a reference (Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6).

    The metric of torchmetrics takes images and runs the extractor itself, so that several metrics would run it several
    times. It also needs sums of the features of the reference, while files hold their mean and covariance.

    Args:
        num_features: Number of features D.
        **kwargs: Options of `torchmetrics.Metric`.

    Attributes:
        reference: The statistics to compare with; set them before `compute`.
    """

    higher_is_better = False
    reference: Statistics | None = None

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the distance, a float64 scalar.

        Raises:
            ValueError: there are fewer than two images, there is no reference, or it has another number of features.
        """
        if self.reference is None:
            raise ValueError("FrechetDistance.reference is not set: give it the statistics of real images")
        return frechet_distance(super().compute(), self.reference)


def frechet_distance(first: Statistics, second: Statistics) -> Tensor:
    """Return |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), a float64 scalar.

    The trace of (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of A' S2 A, where S1 = A A'. This
    symmetric problem is faster and more accurate than the eigenvalues of S1 S2, and it is small if there are fewer
    images than features.

    Raises:
        ValueError: the numbers of features differ.
    """
    if first.mu.shape != second.mu.shape:
        raise ValueError(f"statistics of {len(first.mu)} and of {len(second.mu)} features cannot be compared")
    values, vectors = torch.linalg.eigh(first.sigma)
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    root = vectors[:, kept] * values[kept].sqrt()
    other = second.sigma.to(root.device)
    shared = torch.linalg.eigvalsh(root.T @ other @ root).clamp(min=0).sqrt().sum()
    apart = (first.mu - second.mu.to(root.device)).square().sum()
    return apart + first.sigma.trace() + other.trace() - 2 * shared
