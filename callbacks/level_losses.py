"""`LevelLosses`: losses of single levels, mask fractions and entropy, which a training step reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.reporting.trainer_state import logs_now


class LevelLosses(Callback):
    """Logs the report of a training step as ``train/<key>``: ``train/loss/level_1``, ``train/mask_fraction/level_0``...

    A logged value is the mean over the batches of one optimizer step, all micro-batches of all ranks. All keys
    are reduced in one collective, and only on the steps that are logged.

    ``training_step`` must return a dict with ``report``, a dict of scalar tensors, with the same keys on all ranks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, Tensor] = {}  # float32 [2]: sum and number of values

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the sums, also in a second fit."""
        self._sums = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the report to the sums, and log the means once the optimizer step is complete.

        Raises:
            MisconfigurationException: the training step returns no report.
        """
        if not logs_now(trainer):
            return
        if isinstance(outputs, Mapping) and "report" in outputs:
            for key, value in outputs["report"].items():
                entry = torch.stack([value.detach().float(), torch.ones_like(value, dtype=torch.float32)])
                self._sums[key] = self._sums[key] + entry if key in self._sums else entry
        elif outputs:  # a skipped batch has no outputs
            raise MisconfigurationException(
                f"LevelLosses needs {type(pl_module).__name__}.training_step to return a dict with 'report'; leave the "
                "callback out"
            )
        # Also true for the last batches of an epoch, which may be fewer.
        if trainer.fit_loop._should_accumulate() or not self._sums:
            return
        keys = sorted(self._sums)
        table = trainer.strategy.reduce(torch.stack([self._sums[key] for key in keys]), reduce_op="mean")  # [key, 2]
        self._sums = {}
        means = table[:, 0] / table[:, 1]
        pl_module.log_dict({f"train/{key}": mean for key, mean in zip(keys, means, strict=True)}, batch_size=1)
