"""`PixelBaseline`: the bits per dim of images under a model of independent pixels."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.reporting.trainer_state import stage_of
from datamodules.base import data_of
from datamodules.images.data_module import ImageDataModule
from datamodules.images.source import Images
from litscale.metrics.mean import Mean


class PixelBaseline(Callback):
    """Logs ``val/bits_per_dim/independent_pixels`` (``test/...``) in ``validate`` and ``test``.

    The baseline knows how often each value occurs at each place and channel of the training images, and nothing of the
    dependence between places: a trained model must have fewer bits. One count in all is spread evenly over the values,
    so that none has probability 0.
    """

    def __init__(self, num_images: int = 5000) -> None:
        """Check the option.

        Args:
            num_images: number of training images to count pixels in, evenly spread; all, if there are fewer.

        Raises:
            ValueError: the number is below 1.
        """
        super().__init__()
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, not {num_images}")
        self.num_images = num_images
        self._bits: Tensor | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count values in the training images on rank zero, and send the code lengths to all ranks.

        Raises:
            MisconfigurationException: the data are no images.
        """
        data = data_of(trainer)
        if not isinstance(data, ImageDataModule):
            raise MisconfigurationException(f"PixelBaseline needs a data module of images, not {type(data).__name__}")
        bits = _bits(data.images("train"), self.num_images, data.alphabet) if trainer.is_global_zero else None
        self._bits = cast(Tensor, trainer.strategy.broadcast(bits)).to(pl_module.device)
        self._mean = Mean().to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the code lengths of a batch of images to the mean."""
        if self._bits is None:
            return
        cells = batch["canvas"].flatten(1).long()  # [B, C * H * W]
        self._mean.update(self._bits.gather(1, cells.t()).mean(0))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean over all ranks."""
        if self._bits is None:
            return
        _, prefix = stage_of(trainer)
        pl_module.log(f"{prefix}/bits_per_dim/independent_pixels", self._mean.compute(), sync_dist=True, batch_size=1)
        self._bits = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the baseline in validation too, except within ``fit``, where it would never change."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.on_test_epoch_start(trainer, pl_module)

    on_validation_batch_end = on_test_batch_end
    on_validation_epoch_end = on_test_epoch_end


def _bits(images: Images, most: int, alphabet: int) -> Tensor:
    """Return the code length of each value at each cell in bits, float32 ``[C * H * W, alphabet]``."""
    chosen = np.unique(np.linspace(0, len(images) - 1, most).astype(np.int64))
    counts = np.full((images.canvas(0).size, alphabet), 1 / alphabet)
    for index in chosen:
        canvas = images.canvas(int(index)).reshape(-1)
        counts[np.arange(len(canvas)), canvas] += 1
    return torch.from_numpy(math.log2(len(chosen) + 1) - np.log2(counts)).float()
