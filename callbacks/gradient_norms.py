"""`GradientNorms`: norms of the gradients, of the whole network and of each level."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from callbacks.reporting.trainer_state import logs_now
from datamodules.base import offered
from lit_models.contracts import LevelParameters


class GradientNorms(Callback):
    """Logs L2 norms ``grad_norm/total`` and, for modules with ``parameters_by_level``, ``grad_norm/level_0``, ...

    They are those of an optimizer step's gradient: after accumulation and the mean over ranks, without the scale of
    16-bit loss scaling, and before clipping, so ``grad_norm/total`` is what ``gradient_clip_val`` is compared with.
    With loss scaling, infinity or NaN is a step that the scaler skips.

    Of the sharded strategies it works with `ModelParallelStrategy`; FSDP and DeepSpeed are refused, because there each
    rank has a part of the gradient and does not know which.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the strategy.

        Raises:
            MisconfigurationException: the strategy is FSDP or DeepSpeed, which shard gradients.
        """
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise MisconfigurationException(
                f"GradientNorms would see a part of the gradient under {type(trainer.strategy).__name__}: leave the "
                "callback out, or use ddp or ModelParallelStrategy"
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norms on logging steps."""
        if not logs_now(trainer):
            return
        groups: dict[str, Iterable[Parameter]] = {
            "total": [parameter for group in optimizer.param_groups for parameter in group["params"]]
        }
        if levels := offered(pl_module, LevelParameters):
            groups |= levels.parameters_by_level()
        norms = torch.stack([_norm(parameters, pl_module.device) for parameters in groups.values()])
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # Lightning unscales before this hook, except for fused optimizers, which do it in their step.
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            norms = norms / scaler.get_scale()
        pl_module.log_dict({f"grad_norm/{name}": norm for name, norm in zip(groups, norms, strict=True)}, batch_size=1)


def _norm(parameters: Iterable[Parameter], device: torch.device) -> Tensor:
    """Return the L2 norm of the gradients, float32; 0 without gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm(gradients)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).to(device, torch.float32)
