"""Optimiser and learning-rate schedule that the modules share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from datamodules.base import BatchData, offered

LINEAR_HOLD = 0.05  # share of the steps after the warm-up


@dataclass(frozen=True)
class Optimization:
    """AdamW with warm-up and a decay over the run.

    Args:
        lr: learning rate; by default ``base_lr`` times the number of canvases per step over all ranks / 256.
        base_lr: learning rate at 256 canvases per step.
        min_lr_ratio: the decay ends at this share of the learning rate.
        schedule: after the warm-up: ``cosine``, ``linear`` (constant for a twentieth of the rest, then linear, as VAR
            was trained) or ``constant``.
        warmup_steps: optimiser steps of linear warm-up.
        warmup_epochs: epochs of linear warm-up, added to ``warmup_steps``.
        weight_decay: of matrices; norms, biases and embeddings have none.
        weight_decay_end: grow (or shrink) to this on a half cosine over the run; null keeps ``weight_decay``.
        betas: AdamW's.

    Raises:
        ValueError: an option is out of range.
    """

    lr: float | None = None
    base_lr: float = 1e-4
    min_lr_ratio: float = 0.0
    schedule: str = "cosine"
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    weight_decay: float = 0.05
    weight_decay_end: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"optimization.schedule must be cosine, linear or constant, not {self.schedule!r}")
        for name, value in asdict(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ValueError(f"optimization.{name} must not be negative, got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimization.betas must be at least 0 and below 1, got {self.betas}")

    def configure(self, module: LightningModule, network: nn.Module) -> dict[str, object]:
        """What ``configure_optimizers`` returns for the parameters of ``network``.

        Raises:
            ValueError: the learning rate is to be scaled but the batch size is not known.
        """
        trainer = module.trainer
        optimizer = AdamW(parameter_groups(network, self.weight_decay), self.learning_rate(trainer), self.betas)
        scheduler = LambdaLR(optimizer, self.factor(trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def reapply(self, trainer: Trainer) -> None:
        """Put these settings into an optimiser and schedule that were restored with a checkpoint's.

        Otherwise the checkpoint's learning rate and weight decay would win over those that the user gives on resuming.
        """
        peak = self.learning_rate(trainer)
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            scheduler.base_lrs = [peak] * len(scheduler.base_lrs)
            for group, factor in zip(scheduler.optimizer.param_groups, scheduler.lr_lambdas, strict=True):
                group["initial_lr"] = peak
                group["lr"] = peak * factor(scheduler.last_epoch)
                group["weight_decay"] = self.weight_decay if group["decays"] else 0.0

    def learning_rate(self, trainer: Trainer) -> float:
        """The peak learning rate."""
        if self.lr is not None:
            return self.lr
        data = offered(trainer.datamodule, BatchData)
        if data is None:
            raise ValueError("optimization.lr: give it, or a data module with a batch_size to scale base_lr by")
        return self.base_lr * data.batch_size * trainer.world_size * trainer.accumulate_grad_batches / 256

    def set_weight_decay(self, trainer: Trainer) -> None:
        """Give the optimisers the weight decay of the step to come, if it changes."""
        if self.weight_decay_end is None or math.isinf(total := trainer.estimated_stepping_batches):
            return
        grown = 0.5 * (1 - math.cos(math.pi * min(1.0, trainer.global_step / total)))
        now = self.weight_decay + (self.weight_decay_end - self.weight_decay) * grown
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["weight_decay"] = now if group["decays"] else 0.0

    def factor(self, trainer: Trainer) -> Callable[[int], float]:
        """Learning-rate factor by optimiser step.

        The length of the run is asked for late, at the end of the warm-up: asking sets the loaders up, and in a resumed
        run that must not happen before their state is there.
        """

        def at(step: int) -> float:
            if step == 0 and not self.warmup_epochs:
                return 1.0 if not self.warmup_steps else 1.0 / self.warmup_steps
            per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches if self.warmup_epochs else 0.0
            warmup = self.warmup_steps + (self.warmup_epochs * per_epoch if self.warmup_epochs else 0.0)
            if step < warmup:
                return (step + 1) / warmup
            total = trainer.estimated_stepping_batches
            if self.schedule == "constant" or math.isinf(total) or total <= warmup:
                return 1.0
            progress = min(1.0, (step - warmup) / (total - warmup))
            left = 0.5 * (1 + math.cos(math.pi * progress))
            if self.schedule == "linear":
                left = min(1.0, (1 - progress) / (1 - LINEAR_HOLD))
            return self.min_lr_ratio + (1 - self.min_lr_ratio) * left

        return at


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of linear and convolution layers decay; all else (norms, biases, embeddings, tokens) does not."""
    matrices = {
        id(layer.weight)
        for layer in network.modules()
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d))
    }
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": weight_decay, "decays": True},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0, "decays": False},
    ]
