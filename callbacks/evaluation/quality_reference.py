"""`QualityReference`: statistics and features of the real images with which generated ones are compared."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks.reporting.trainer_state import is_trial, stage_of
from datamodules.base import data_of
from litscale.metrics import FeatureBank, FeatureStatistics
from litscale.metrics.features import checked_size, extract, identity
from litscale.metrics.reference import Reference, data_identity, read_reference, write_reference
from litscale.storage.caches import cache_root


class QualityReference:
    """Statistics and features of real images, from a file, from the cache, or from the batches of this validation.

    The cache is keyed by the extractor (structure, options, weights) and the data set: its type, length and content, or
    names, sizes and times of all its files. It is read if all ranks see the file, and written if no limit of the
    trainer kept images out. Data that cannot be indexed are not cached.

    Args:
        extractor: a `litscale.metrics.features.FeatureExtractor`, on its device.
        path: path of the file; None for the batches.
        cache_dir: folder of the cache; None for the default one.
        batch_size: number of images that go through the extractor at once, if the file holds images.

    Attributes:
        statistics: mean and covariance, once they are known.
        features: float32 ``[M, D]``; None if the reference has none.
        has_features: whether the reference has features, or will have them.
        name: name of the reference, for people.
    """

    def __init__(self, extractor: nn.Module, path: str | None, cache_dir: str | None, batch_size: int) -> None:
        self.extractor = extractor
        self.path = path
        self.cache_dir = cache_root(cache_dir)
        self.batch_size = batch_size
        self.has_features = True
        self._known = Reference()
        self._cached: Path | None = None

    def begin(self, trainer: Trainer, device: torch.device) -> None:
        """Read the file or the cache; all ranks call this together.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file holds neither statistics of the extractor's features nor images.
        """
        size = checked_size(self.extractor)
        self._statistics, self._bank = FeatureStatistics(size).to(device), FeatureBank().to(device)
        self._seen = 0
        if self.path is not None:
            self.name = self.path
            self._known = read_reference(self.path, size)
            self.has_features = self._known.features is not None or self._known.images is not None
            self._take_images(trainer, device)
            return
        loader = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        limit = trainer.limit_test_batches if trainer.testing else trainer.limit_val_batches
        self.name = f"the {stage_of(trainer)[1]} data of {type(data_of(trainer)).__name__}"
        data = data_identity(loader.dataset if isinstance(loader, DataLoader) else None)
        if data is None:
            return
        key = hashlib.sha256(f"{identity(self.extractor)} {data}".encode()).hexdigest()[:32]
        path = self.cache_dir / "features" / f"{key}.npz"
        if trainer.strategy.reduce_boolean_decision(path.is_file()):
            self._known = read_reference(path, size)
        elif isinstance(limit, float) and limit == 1.0 and not is_trial(trainer):
            self._cached = path

    def take(self, trainer: Trainer, canvases: Tensor) -> None:
        """Add a batch of the data, uint8 ``[B, C, H, W]``, unless the reference is known.

        Samplers deal images to the ranks in turn, so an image's number in the data set is its number on the rank times
        the number of ranks, plus the rank.
        """
        if self.path is None and self._known.statistics is None:
            first, self._seen = self._seen, self._seen + len(canvases)
            index = torch.arange(first, self._seen, device=canvases.device)
            self._extract(canvases, index * trainer.world_size + trainer.global_rank)

    def end(self, trainer: Trainer) -> None:
        """Compute statistics and features, unless they were read; all ranks call this together.

        Raises:
            ValueError: there are fewer than two images.
        """
        known = self._known
        self.statistics = self._statistics.compute() if known.statistics is None else known.statistics
        self.features = self._bank.compute() if known.features is None and self.has_features else known.features
        if self._cached is not None and self.features is not None and trainer.is_global_zero:
            write_reference(self._cached, self.statistics, self.features)
        self._statistics.reset()
        self._bank.reset()

    def _take_images(self, trainer: Trainer, device: torch.device) -> None:
        """Extract features of this rank's share of the file's images."""
        images = self._known.images
        if images is None:
            return
        starts = range(0, len(images), self.batch_size)[trainer.global_rank :: trainer.world_size]
        for first in starts:
            batch = torch.from_numpy(images[first : first + self.batch_size]).permute(0, 3, 1, 2).to(device)
            self._extract(batch, torch.arange(first, first + len(batch), device=device))

    def _extract(self, canvases: Tensor, index: Tensor) -> None:
        features, _ = extract(self.extractor, canvases)
        self._statistics.update(features)
        self._bank.update(features, index)
