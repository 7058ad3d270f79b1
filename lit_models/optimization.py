"""Optimiser and learning-rate schedule that the modules share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import FSDPPrecision, MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from datamodules.base import BatchData, data_of, offered

FUSED = ("cpu", "cuda")  # devices on which AdamW's update is fused by default
LINEAR_HOLD = 0.05  # fraction of the steps after the warm-up in which a linear schedule stays constant


@dataclass(frozen=True)
class Optimization:
    """AdamW with a linear warm-up and a decay of the learning rate over the run.

    Args:
        lr: Peak learning rate. If it is null, it is ``base_lr`` times the number of canvases of a step over all ranks,
            divided by 256; this linear scaling keeps a published ``base_lr`` valid for any number of devices.
        base_lr: Learning rate for steps of 256 canvases, which counts unless ``lr`` is given. The default, 1e-4, is
            that of the published VARs up to depth 20; FractalGen was published with 5e-5.
        min_lr_ratio: Learning rate at the end of the decay, as a fraction of the peak. The default, 0, decays to zero,
            as in FractalGen.
        schedule: Shape of the decay after the warm-up: ``cosine``, as in FractalGen; ``linear``, which stays constant
            for the first twentieth of the remaining steps, as in VAR; or ``constant``, for runs of unknown length.
        warmup_steps: Length of the linear warm-up in optimiser steps. The default, 0, starts at the peak.
        warmup_epochs: Length of the linear warm-up in epochs, which is added to ``warmup_steps``; published settings
            count the warm-up in epochs.
        weight_decay: Weight decay of AdamW, as a fraction of the weight for each unit of learning rate and step, for
            the weights of linear and convolution layers alone; norms, biases and embeddings have none. The default,
            0.05, is that of FractalGen and of VAR.
        weight_decay_end: Weight decay at the end of the run, which is approached on a half cosine. The default, null,
            keeps ``weight_decay`` throughout.
        betas: Decay rates for each step of AdamW's averages of the gradient and of its square. The defaults are those
            of FractalGen and of VAR: 0.95 instead of AdamW's own 0.999 follows changing gradients more closely.
        fused: Whether one kernel updates all weights of a group, which is several times faster, and equal up to
            rounding. The default, null, does so on CPUs and on CUDA, unless ``trainer.gradient_clip_val`` is given and
            ``trainer.precision`` is 16-mixed: the fused update would undo the scale of the loss too late for clipping.

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
    fused: bool | None = None

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"optimization.schedule must be cosine, linear or constant, not {self.schedule!r}")
        for name, value in asdict(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ValueError(f"optimization.{name} must not be negative, got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimization.betas must be at least 0 and below 1, got {self.betas}")

    def configure(self, module: LightningModule, network: nn.Module) -> OptimizerLRSchedulerConfig:
        """Build the optimiser and the schedule for the parameters of a network, for ``configure_optimizers``.

        Raises:
            ValueError: the learning rate is to be scaled, but the batch size is unknown; or ``fused`` is true, and
                gradients are clipped in 16-mixed precision.
        """
        trainer = module.trainer
        groups = parameter_groups(network, self.weight_decay)
        fused = self.takes_fused(trainer, network)
        optimizer = AdamW(groups, self.learning_rate(trainer), self.betas, fused=fused)
        if fused and trainer.gradient_clip_val:
            # There is no scale of the loss, see `takes_fused`. Lightning refuses to clip before an update that could
            # undo one, in bf16-mixed precision too.
            optimizer._step_supports_amp_scaling = False
        scheduler = LambdaLR(optimizer, self.factor(trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def takes_fused(self, trainer: Trainer, network: nn.Module) -> bool:
        """Return whether the update of a network's weights is fused.

        Raises:
            ValueError: ``fused`` is true, and gradients are clipped in 16-mixed precision.
        """
        too_late = bool(trainer.gradient_clip_val) and scales_loss(trainer)
        if self.fused and too_late:
            raise ValueError(
                "optimization.fused: true undoes the scale of 16-mixed precision too late for "
                "trainer.gradient_clip_val: give null or false, or precision bf16-mixed"
            )
        if self.fused is not None:
            return self.fused
        return not too_late and all(parameter.device.type in FUSED for parameter in network.parameters())

    def reapply(self, trainer: Trainer) -> None:
        """Apply these options to optimisers and schedules that were restored from a checkpoint.

        Otherwise the learning rate and weight decay of the checkpoint would override those that the user resumes with,
        and so would its choice of a fused update or of one that is not fused.
        """
        peak = self.learning_rate(trainer)
        for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
            if not isinstance(scheduler, LambdaLR):
                continue  # LearningRateFinder has put its own in place of ours while it searches
            scheduler.base_lrs = [peak] * len(scheduler.base_lrs)
            for group, factor in zip(scheduler.optimizer.param_groups, scheduler.lr_lambdas, strict=True):
                group["initial_lr"] = peak
                group["lr"] = peak * factor(scheduler.last_epoch)
                group["weight_decay"] = self.weight_decay if group["decays"] else 0.0
                _set_fused(scheduler.optimizer, group)

    def learning_rate(self, trainer: Trainer) -> float:
        """Return the peak learning rate.

        Raises:
            ValueError: ``base_lr`` is to be scaled, but the batch size is unknown.
        """
        if self.lr is not None:
            return self.lr
        data = offered(data_of(trainer), BatchData)
        if data is None:
            raise ValueError("optimization.lr: give it, or a data module with a batch_size to scale base_lr by")
        return self.base_lr * data.batch_size * trainer.world_size * trainer.accumulate_grad_batches / 256

    def set_weight_decay(self, trainer: Trainer) -> None:
        """Set the weight decay of the next step, if it changes over the run."""
        if self.weight_decay_end is None or math.isinf(total := trainer.estimated_stepping_batches):
            return
        grown = 0.5 * (1 - math.cos(math.pi * min(1.0, trainer.global_step / total)))
        now = self.weight_decay + (self.weight_decay_end - self.weight_decay) * grown
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["weight_decay"] = now if group["decays"] else 0.0

    def factor(self, trainer: Trainer) -> Callable[[int], float]:
        """Return the function from optimiser steps to factors of the peak learning rate.

        It reads the length of the run only after the warm-up, because that sets up the loaders, which in a resumed run
        must not happen before their state is restored.
        """

        def at(step: int) -> float:
            # 1. warm-up
            if step == 0 and not self.warmup_epochs:
                return 1.0 if not self.warmup_steps else 1.0 / self.warmup_steps
            per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches if self.warmup_epochs else 0.0
            warmup = self.warmup_steps + (self.warmup_epochs * per_epoch if self.warmup_epochs else 0.0)
            if step < warmup:
                return (step + 1) / warmup
            # 2. decay
            total = trainer.estimated_stepping_batches
            if self.schedule == "constant" or math.isinf(total) or total <= warmup:
                return 1.0
            progress = min(1.0, (step - warmup) / (total - warmup))
            left = 0.5 * (1 + math.cos(math.pi * progress))
            if self.schedule == "linear":
                left = min(1.0, (1 - progress) / (1 - LINEAR_HOLD))
            return self.min_lr_ratio + (1 - self.min_lr_ratio) * left

        return at


def scales_loss(trainer: Trainer) -> bool:
    """Return whether a trainer's precision is 16-mixed, in which a scaler multiplies the loss and skips steps."""
    precision = trainer.precision_plugin
    return isinstance(precision, MixedPrecision | FSDPPrecision) and precision.scaler is not None


def _set_fused(optimizer: Optimizer, group: dict[str, Any]) -> None:
    """Give a group the kind of update, fused or not, that the optimiser was built with, whatever a checkpoint says."""
    group["fused"] = fused = optimizer.defaults["fused"]
    for parameter in group["params"]:
        if state := optimizer.state.get(parameter):
            state["step"] = state["step"].to(parameter.device if fused else "cpu")  # where either kind looks for it


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Group parameters for AdamW: weights of linear and convolution layers, which decay, and all others."""
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
