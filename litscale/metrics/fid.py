"""The Frechet distance between two sets of features, FID where the features are Inception's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class Statistics(NamedTuple):
    """Mean and covariance of features, as files of reference statistics hold them.

    Attributes:
        mu: float64 ``[D]``.
        sigma: float64 ``[D, D]``, divided by the number of images less one.
        count: number of images, where it is known.
    """

    mu: Tensor
    sigma: Tensor
    count: int | None = None  # type: ignore[assignment]  # in place of the tuple's method, which is not used


class FeatureStatistics(Metric):
    """Mean and covariance of features, from float64 sums that add up over batches and ranks.

    Args:
        num_features: D.
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, num_features: int, **kwargs: object) -> None:
        # Not from torchmetrics' cache: a reference may be set after a first result.
        super().__init__(compute_with_cache=False, **kwargs)
        size = num_features
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Take in features ``[B, D]``."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(dim=0)
        self.outer += features.T @ features

    def compute(self) -> Statistics:
        """Mean and covariance.

        Raises:
            ValueError: fewer than two images were taken in.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"a covariance needs at least 2 images, not {count}")
        mu = self.total / count
        return Statistics(mu, (self.outer - count * torch.outer(mu, mu)) / (count - 1), count)


class FrechetDistance(FeatureStatistics):
    """Frechet distance of features to a reference (Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6).

    torchmetrics' own takes images and runs the extractor itself, once for each metric; it wants sums of the reference
    too, where a statistics file has mean and covariance alone.

    Args:
        num_features: D.
        **kwargs: those of `torchmetrics.Metric`.

    Attributes:
        reference: what to compare with; set it before `compute`.
    """

    higher_is_better = False
    reference: Statistics | None = None

    def compute(self) -> Tensor:  # type: ignore[override]
        """The distance, a float64 scalar.

        Raises:
            ValueError: fewer than two images, no reference, or one of another number of features.
        """
        if self.reference is None:
            raise ValueError("FrechetDistance.reference is not set: give it the statistics of real images")
        return frechet_distance(super().compute(), self.reference)


def frechet_distance(first: Statistics, second: Statistics) -> Tensor:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), a float64 scalar.

    The last trace is the sum of the roots of the eigenvalues of A' S2 A, where S1 = A A': a symmetric problem, faster
    and more exact than the eigenvalues of S1 S2, and small if there are fewer images than features.

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
