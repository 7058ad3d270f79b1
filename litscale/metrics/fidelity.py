"""Inception Score, KID, precision and recall of images from several ranks, computed by torch-fidelity.

The metrics of torchmetrics run the extractor once each. They draw subsets from the global generator, and the result
depends on the order in which ranks deliver their images. Precision and recall are missing there. torch-fidelity is
imported where it is used, since the import takes a second for which `litscale --help` should not wait.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

KID_SUBSET = 1000
NEIGHBOURS = 3
MOST_IMAGES = 2**24  # float32 represents integers up to here


class FeatureBank(Metric):
    """Keeps the features of each image, and returns them in the order of the image numbers, whichever ranks added them.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    rows: list[Tensor]
    width: Tensor

    def __init__(self, **kwargs: object) -> None:
        # A result must not come from the cache of torchmetrics, as a reference may be set after it was computed.
        super().__init__(compute_with_cache=False, **kwargs)
        # Image numbers and features share one flat float32 state, because torchmetrics represents a rank without images
        # by a flat empty float tensor.
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("width", torch.tensor(0), dist_reduce_fx="max")

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add images.

        Args:
            features: float ``[B, D]``.
            index: The number of each image, int64 ``[B]``, below 2**24.

        Raises:
            ValueError: the number of an image is too large.
        """
        if len(index) and int(index.max()) >= MOST_IMAGES:
            raise ValueError(f"image {int(index.max())}: at most {MOST_IMAGES} images can be compared")
        self.width = torch.full_like(self.width, features.shape[1] + 1)
        rows = torch.cat([index[:, None].to(features.device, torch.float32), features.float()], dim=1)
        self.rows.append(rows.flatten())

    def compute(self) -> Tensor:
        """Return the features, float32 ``[N, D]``, in the order of the image numbers.

        Raises:
            ValueError: no image was added.
        """
        if not int(self.width):
            raise ValueError("no image was given")
        rows = self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)
        rows = rows.view(-1, int(self.width))
        return rows[rows[:, 0].argsort(), 1:]


class InceptionScore(FeatureBank):
    """Inception Score (Salimans et al. 2016, https://arxiv.org/abs/1606.03498), averaged over ten splits of the images.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def update(self, logits: Tensor, index: Tensor) -> None:
        """Add images by their logits, float ``[B, K]``; see `FeatureBank.update`."""
        super().update(logits, index)

    def compute(self) -> Tensor:
        """Return the score, a float64 scalar of at least 1; fewer than ten images are one split each."""
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

        logits = super().compute()
        score = isc_features_to_metric(logits.cpu(), splits=min(10, len(logits)))[KEY_METRIC_ISC_MEAN]
        return torch.tensor(score, dtype=torch.float64, device=self.device)


class _ComparedFeatures(FeatureBank):
    """A metric that compares features with those of a reference."""

    reference: Tensor | None = None

    def _both(self) -> tuple[Tensor, Tensor]:
        """Return the features of the images and of the reference, on one device."""
        if self.reference is None:
            raise ValueError(f"{type(self).__name__}.reference is not set: give it the features of real images")
        features = FeatureBank.compute(self)
        if features.shape[1] != self.reference.shape[1]:
            raise ValueError(f"{features.shape[1]} and {self.reference.shape[1]} features cannot be compared")
        return features, self.reference.to(features.device)


class KernelDistance(_ComparedFeatures):
    """Kernel Inception Distance (Binkowski et al. 2018, https://arxiv.org/abs/1801.01401) with a cubic kernel.

    It is the mean over 100 random subsets of 1000 images each, or of all images of the smaller set if it has fewer.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.

    Attributes:
        reference: Features of real images, float ``[M, D]``; set them before `compute`.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the squared distance, a float64 scalar; as the estimate is unbiased, it may be negative.

        Raises:
            ValueError: there are fewer than two images, there is no reference, or it has another number of features.
        """
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        own, other = self._both()
        size = min(len(own), len(other), KID_SUBSET)
        if size < 2:
            raise ValueError(f"KID needs at least 2 images and 2 of the reference, not {len(own)} and {len(other)}")
        scores = kid_features_to_metric(own, other, kid_subset_size=size, verbose=False)
        return torch.tensor(scores[KEY_METRIC_KID_MEAN], dtype=torch.float64, device=self.device)


class PrecisionRecall(_ComparedFeatures):
    """Improved precision and recall (Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991) with 3 neighbours.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.

    Attributes:
        reference: Features of real images, float ``[M, D]``; set them before `compute`.
    """

    higher_is_better = True

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Return ``precision`` and ``recall``, float64 scalars.

        Precision is the fraction of images that lie in the manifold of the real ones, which is the union of spheres
        around these that reach to their third neighbour. Recall exchanges the two sets.

        Raises:
            ValueError: there are at most three images, there is no reference, or it has another number of features.
        """
        from torch_fidelity.metric_prc import prc_features_to_metric

        own, other = self._both()
        if min(len(own), len(other)) <= NEIGHBOURS:
            raise ValueError(
                f"precision and recall need at least {NEIGHBOURS + 1} images and as many of the reference, not "
                f"{len(own)} and {len(other)}"
            )
        # save_cpu_ram computes distances in parts; all distances between 50,000 images would take 10 GB.
        scores = prc_features_to_metric(own, other, prc_neighborhood=NEIGHBOURS, save_cpu_ram=True, verbose=False)
        return {
            name: torch.tensor(scores[name], dtype=torch.float64, device=self.device)
            for name in ("precision", "recall")
        }
