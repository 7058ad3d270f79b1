"""What all modules share: repeatable steps, finite losses, checkpoints that fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from models.state_dicts import differences


class LitModule(LightningModule):
    """A LightningModule whose every step draws from a seed of its own.

    The seed of a training step is made of the run's seed (``seed_everything``), the number of the batch and the rank,
    so a resumed run draws what the uninterrupted one would have drawn, and no generator state has to be saved.
    """

    def seed_step(self, stage: int, number: int) -> None:
        """Seed torch for batch ``number`` of a stage (0 training, 1 evaluation)."""
        run = int(os.environ.get("PL_GLOBAL_SEED", 0))
        words = (run, stage, number, self.global_rank)
        mixed = 0
        for word in words:
            mixed = (mixed * 0x9E3779B1 + word + 0x7F4A7C15) % 2**63
        torch.manual_seed(mixed)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step."""
        self.seed_step(0, self.trainer.fit_loop.epoch_loop.total_batch_idx)

    def finite(self, loss: Tensor) -> Tensor:
        """The loss, if it is a number.

        Raises:
            FloatingPointError: it is not; the step is not taken.
        """
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}: lower the learning rate (model's "
                "optimization.lr or base_lr), lengthen the warm-up or set trainer.gradient_clip_val, and resume from "
                "the last checkpoint with --ckpt_path"
            )
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights.

        Raises:
            ValueError: the checkpoint is of another architecture; the entries that differ are named.
        """
        problems = differences(self.state_dict(), state_dict)
        if strict and problems:
            more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
            raise ValueError(
                f"the checkpoint is of another architecture: {'; '.join(problems[:6])}{more}. Give the config that it "
                "was trained with (config.yaml in its run folder)"
            )
        return super().load_state_dict(state_dict, strict, assign)
