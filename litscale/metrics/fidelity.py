"""Inception Score, KID, precision and recall: torch-fidelity's, over images that several ranks made.

torchmetrics' own run the extractor once each and draw subsets from the global generator, in the order in which ranks
happen to deliver; it has no precision and recall. torch-fidelity takes a second to import, which `litscale --help` need
not wait for, so it is imported where it is used.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

KID_SUBSET = 1000
NEIGHBOURS = 3
MOST_IMAGES = 2**24  # whole numbers that float32 holds


class FeatureBank(Metric):
    """Keeps a row of numbers for each image, and gives them in the order of the images' numbers on any ranks.

    Args:
        **kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    rows: list[Tensor]
    width: Tensor

    def __init__(self, **kwargs: object) -> None:
        # Not from torchmetrics' cache: a reference may be set after a first result.
        super().__init__(compute_with_cache=False, **kwargs)
        # Number and values in one flat float32 state, because torchmetrics stands a flat empty float tensor in for a
        # rank that saw no images.
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("width", torch.tensor(0), dist_reduce_fx="max")

    def update(self, features: Tensor, index: Tensor) -> None:
        """Take in images.

        Args:
            features: float ``[B, D]``.
            index: int64 ``[B]``, the number of each image, below 2**24.

        Raises:
            ValueError: a number is too large.
        """
        if len(index) and int(index.max()) >= MOST_IMAGES:
            raise ValueError(f"image {int(index.max())}: at most {MOST_IMAGES} images can be compared")
        self.width = torch.full_like(self.width, features.shape[1] + 1)
        rows = torch.cat([index[:, None].to(features.device, torch.float32), features.float()], dim=1)
        self.rows.append(rows.flatten())

    def compute(self) -> Tensor:
        """float32 ``[N, D]`` in the order of the images.

        Raises:
            ValueError: there is no image.
        """
        if not int(self.width):
            raise ValueError("no image was taken in")
        rows = self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)
        rows = rows.view(-1, int(self.width))
        return rows[rows[:, 0].argsort(), 1:]


class InceptionScore(FeatureBank):
    """Inception Score (Salimans et al. 2016, https://arxiv.org/abs/1606.03498): the mean over ten parts of the images.

    Args:
        **kwargs: those of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def update(self, logits: Tensor, index: Tensor) -> None:
        """Take in images; `logits` are float ``[B, K]``, see `FeatureBank.update`."""
        super().update(logits, index)

    def compute(self) -> Tensor:
        """The score, a float64 scalar of at least 1; with fewer than ten images each is a part of its own."""
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

        logits = super().compute()
        score = isc_features_to_metric(logits.cpu(), splits=min(10, len(logits)))[KEY_METRIC_ISC_MEAN]
        return torch.tensor(score, dtype=torch.float64, device=self.device)


class _ComparedFeatures(FeatureBank):
    """Compares features with those of a reference."""

    reference: Tensor | None = None

    def _both(self) -> tuple[Tensor, Tensor]:
        """Features of the images and of the reference, on one device."""
        if self.reference is None:
            raise ValueError(f"{type(self).__name__}.reference is not set: give it the features of real images")
        features = FeatureBank.compute(self)
        if features.shape[1] != self.reference.shape[1]:
            raise ValueError(f"{features.shape[1]} and {self.reference.shape[1]} features cannot be compared")
        return features, self.reference.to(features.device)


class KernelDistance(_ComparedFeatures):
    """Kernel Inception Distance (Binkowski et al. 2018, https://arxiv.org/abs/1801.01401), cubic kernel.

    The mean over 100 subsets of 1000 images each, or of as many as the smaller side has.

    Args:
        **kwargs: those of `torchmetrics.Metric`.

    Attributes:
        reference: float ``[M, D]``, features of real images; set it before `compute`.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """The squared distance, a float64 scalar; unbiased, so it may be below 0.

        Raises:
            ValueError: fewer than two images, no reference, or one of another number of features.
        """
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        own, other = self._both()
        size = min(len(own), len(other), KID_SUBSET)
        if size < 2:
            raise ValueError(f"KID needs at least 2 images and 2 of the reference, not {len(own)} and {len(other)}")
        found = kid_features_to_metric(own, other, kid_subset_size=size, verbose=False)
        return torch.tensor(found[KEY_METRIC_KID_MEAN], dtype=torch.float64, device=self.device)


class PrecisionRecall(_ComparedFeatures):
    """Improved precision and recall (Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991) with 3 neighbours.

    Args:
        **kwargs: those of `torchmetrics.Metric`.

    Attributes:
        reference: float ``[M, D]``, features of real images; set it before `compute`.
    """

    higher_is_better = True

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """``precision``, the share of images among the real ones, and ``recall``, the reverse; float64 scalars.

        Raises:
            ValueError: at most three images, no reference, or one of another number of features.
        """
        from torch_fidelity.metric_prc import prc_features_to_metric

        own, other = self._both()
        if min(len(own), len(other)) <= NEIGHBOURS:
            raise ValueError(
                f"precision and recall need at least {NEIGHBOURS + 1} images and as many of the reference, not "
                f"{len(own)} and {len(other)}"
            )
        # In parts: the distances of 50,000 images to each other would take 10 GB.
        found = prc_features_to_metric(own, other, prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False)
        return {
            name: torch.tensor(found[name], dtype=torch.float64, device=self.device) for name in ("precision", "recall")
        }
