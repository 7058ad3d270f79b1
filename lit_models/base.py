"""What all modules share: repeatable training, and checks of losses and checkpoints."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Never, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torchmetrics import Metric

from datamodules.base import class_count, data_of
from lit_models.batches import Batch
from lit_models.optimization import Optimization, scales_loss
from lit_models.runs import load_exported
from lit_models.sharding import gather, release, shard
from litscale.models.labels import check_labels
from litscale.models.precision import Convert, at_least_float32
from litscale.models.state_dicts import mismatch

HALF = ("bf16-true", "16-true")
REMEDY = (
    "lower the learning rate (model's optimization.lr or base_lr), lengthen the warm-up or set or "
    "lower trainer.gradient_clip_val, and resume with --ckpt_path last"
)


class DivergedError(FloatingPointError):
    """A loss, or a score of a validation, that is not finite; no run can go on from such weights."""


class GradientError(FloatingPointError):
    """A gradient that is not finite; the step is not taken."""


class LitModule(LightningModule):
    """A LightningModule each of whose training steps is seeded on its own.

    The seed of a training step is made from the seed of the run (``seed_everything``), the number of the batch and the
    rank. A resumed run therefore draws the same random numbers as an uninterrupted one, and checkpoints need not hold
    the state of a generator. Random numbers of an evaluation are keyed by the canvas or the image, so that scores
    depend on neither the batch size nor the number of processes.

    With ``trainer.precision`` bf16-true and 16-true a module evaluates and generates, but refuses to train.

    Attributes:
        network: the network that is trained, unless :meth:`trained` returns others.
        optimization: the optimiser and its schedule.
        shardable: whether the module trains under `ModelParallelStrategy`. Its training steps then may use the weights
            of a trained network only in the forward pass of that network, or after it.
        weight_options: names of the options for files that together hold all weights, see :meth:`weight_files`.
    """

    network: nn.Module
    optimization: Optimization
    shardable = False
    weight_options: tuple[str, ...] = ()
    _losses: tuple[Tensor, ...] = ()  # since the last optimiser step

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: object, *args: object, **kwargs: object) -> Never:
        """Refuse to load, as checkpoints hold no options: the network and its generation would have to be guessed.

        Raises:
            NotImplementedError: always; it names `lit_models.load_run`.
        """
        raise NotImplementedError(
            "checkpoints do not hold the model's options, but config.yaml in the run folder does: use "
            f'lit_models.load_run(FOLDER, checkpoint="{checkpoint_path}")'
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Load a module that ``litscale export`` wrote, or that comes with litscale, with its generation options.

        The weights cannot hold code. Classes that its config.yaml names are imported.

        Args:
            folder: the folder, with config.yaml and model.safetensors; or the name of a model that comes with litscale.

        Returns:
            The module in evaluation mode, on the CPU, with weights in float32 whatever the file's dtype.

        Raises:
            FileNotFoundError: there is no such model, or the folder lacks one of the two files.
            ValueError: a file cannot be read, they do not fit together, or are of another kind of module.
        """
        module = load_exported(folder)
        if not isinstance(module, cls):
            raise ValueError(f"{folder} holds a {type(module).__name__}: use {type(module).__name__}.from_pretrained")
        return module

    @classmethod
    def standalone_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options, without files of weights, with which a module can be built if all its weights are given.

        Args:
            options: the options of a run's config.
        """
        return {name: None if name.endswith("_checkpoint") else value for name, value in options.items()}

    def trained(self) -> list[nn.Module]:
        """Return the networks that are trained."""
        return [self.network]

    def weight_files(self) -> dict[str, str]:
        """Return the files that together hold all weights, by option; empty if these must come from a checkpoint."""
        return {}

    def blocks(self) -> Iterable[nn.Module]:
        """Return the blocks of the networks, each of which is compiled and sharded on its own."""
        return ()

    def compile_each_block(self) -> None:
        """Compile the blocks in place, which keeps the names of their weights in checkpoints."""
        # Blocks of all widths share one forward method, and torch gives up on a function after eight graphs by default.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        for block in self.blocks():
            block.compile(dynamic=True)

    def setup(self, stage: str) -> None:
        """Refuse to train with weights in half precision, or on data of more classes than the module has.

        Raises:
            ValueError: trainer.precision is bf16-true or 16-true, or the data have more classes.
        """
        if stage == "fit" and self.trainer.precision in HALF:
            raise ValueError(
                f"trainer.precision {self.trainer.precision} cannot train, because in half precision most updates are "
                "too small to change a weight, or are NaN: give bf16-mixed (validate, test and predict accept it)"
            )
        # Prediction must not need the data, of which some count their classes; the labels of requests are checked.
        if stage != "predict":
            self.check_classes(data_of(self.trainer))

    def _apply(self, fn: Convert, recurse: bool = True) -> Self:
        """Convert or move the weights; the sums of metrics stay in float32 or a wider type."""
        for child in self.children() if recurse else ():
            measures = any(isinstance(part, Metric) for part in child.modules())
            child._apply(at_least_float32(fn) if measures else fn)
        return super()._apply(fn, recurse=False)

    def configure_model(self) -> None:
        """Shard the trained networks if the strategy is `ModelParallelStrategy`.

        Raises:
            ValueError: the module cannot be sharded, a callback averages weights, or layers are to be split.
        """
        if self.device_mesh is None:  # any other strategy
            return
        if not self.shardable:
            raise ValueError(f"{type(self).__name__} cannot be sharded: give trainer.strategy ddp")
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                raise ValueError(
                    f"{type(callback).__name__} needs a copy of all weights, but the strategy shards them: leave it "
                    "out of trainer.callbacks, or give trainer.strategy ddp"
                )
        shard(self.trained(), self.blocks(), self.device_mesh)

    def on_validation_model_eval(self) -> None:
        """Switch to evaluation and gather sharded weights, since processes may have different numbers of batches."""
        super().on_validation_model_eval()
        gather(self)

    def on_test_model_eval(self) -> None:
        """Switch to evaluation and gather sharded weights."""
        super().on_test_model_eval()
        gather(self)

    def on_predict_model_eval(self) -> None:
        """Switch to evaluation and gather sharded weights."""
        super().on_predict_model_eval()
        gather(self)

    def on_validation_end(self) -> None:
        """Shard the weights again."""
        release(self)

    on_test_end = on_predict_end = on_validation_end

    @property
    def lr(self) -> float | None:
        """The peak learning rate (``optimization.lr``), under the name at which `LearningRateFinder` sets it."""
        return self.optimization.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimization = replace(self.optimization, lr=value)

    @property
    def run_seed(self) -> int:
        """The seed of the run (``seed_everything``), or 0 if it has none."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    def seed_step(self, number: int) -> None:
        """Seed torch for the training batch ``number`` on this rank."""
        words = (self.run_seed, 0, number, self.global_rank)
        mixed = 0
        for word in words:
            mixed = (mixed * 0x9E3779B1 + word + 0x7F4A7C15) % 2**63
        torch.manual_seed(mixed)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the weight decay for the step, and seed torch."""
        self.optimization.set_weight_decay(self.trainer)
        self.seed_step(self.trainer.fit_loop.epoch_loop.total_batch_idx)

    def label_classes(self) -> int:
        """Return the number of classes among which the labels of batches must be; 0 if the module reads no labels."""
        return 0

    def check_classes(self, data: object) -> None:
        """Check that the module has all classes of a data module, if it reads labels.

        Its labels may all be in range, but a prediction asks for all of its classes.

        Args:
            data: the data module; None for plain loaders, of whose batches only the labels are checked.

        Raises:
            ValueError: the data module has more classes.
        """
        own = self.label_classes()
        classes = class_count(data) if own else 0
        if classes > own:
            raise ValueError(
                f"the data has {classes} classes, the network {own}: set the network's num_classes to {classes}, or "
                f"the data's num_classes (or the number of its class_names) to {own}"
            )

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Check the labels of a batch before it leaves the host, where reading them later would wait for the device.

        Lightning calls this for whatever data, after the ``on_before_batch_transfer`` of a data module that has one.

        Raises:
            ValueError: labels are out of range.
        """
        batch = super()._on_before_batch_transfer(batch, dataloader_idx)
        classes = self.label_classes()
        if classes and isinstance(batch, Mapping) and isinstance(batch.get("label"), Tensor):
            check_labels(batch["label"], classes)
        return batch

    def batch_counts(self, batch: Batch) -> dict[str, int]:
        """Count the ``samples`` and ``cells`` of a batch of canvases; nothing for a batch of another kind.

        A cell is one symbol of a canvas: of an image, one channel of a pixel.
        """
        if not isinstance(batch, Mapping) or "canvas" not in batch:
            return {}
        return {"samples": len(batch["canvas"]), "cells": batch["canvas"].numel()}

    def finite(self, loss: Tensor) -> Tensor:
        """Return the loss, and make :meth:`on_before_optimizer_step` refuse the step if the loss is not finite."""
        self._losses += (loss.detach().float(),)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Refuse a step whose losses or gradients are not finite, and show the mean loss in the progress bar.

        The losses and the norm of the gradients are read at once, so that the host waits for the device only once. In
        16-mixed precision the loss scaler takes care of the gradients.

        Raises:
            DivergedError: a loss since the last step is infinite or not a number; the step is not taken.
            GradientError: a gradient is infinite or not a number; the parameter is named, and the step not taken.
        """
        # 1. one look at the losses and at the norm of the gradients, which is finite if all of them are
        parameters = () if scales_loss(self.trainer) else self.named_parameters()
        gradients = {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}
        total = nn.utils.get_total_norm(list(gradients.values()))
        total = (total.full_tensor() if isinstance(total, DTensor) else total).to(self.device, torch.float32)
        *losses, norm = torch.stack([*self._losses, total]).tolist()
        self._losses = ()
        if losses:
            self.trainer.progress_bar_metrics["train/loss"] = sum(losses) / len(losses)
        # 2. which of them is not finite; the gradients are on no process where a loss is not on one of them
        loss = sum(losses)
        if not math.isfinite(norm):
            loss = float(self.trainer.strategy.reduce(total.new_full((), loss), reduce_op="sum"))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {self.global_step}: {REMEDY}")
        if math.isfinite(norm):
            return
        names = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        raise GradientError(
            f"the gradient of {names[0] if names else 'all parameters together'} is not finite at step "
            f"{self.global_step}, so the step is not taken: {REMEDY}"
        )

    def on_train_start(self) -> None:
        """Apply the options that the run is resumed with, in place of those in its checkpoint."""
        self._losses = ()  # an earlier training may have ended between two steps
        self.optimization.reapply(self.trainer)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build AdamW and its schedule."""
        return self.optimization.configure(self, nn.ModuleList(self.trained()))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights.

        Raises:
            ValueError: the checkpoint has another architecture; the message names entries that differ.
        """
        if strict and (problems := mismatch(self.state_dict(), state_dict)):
            raise ValueError(
                f"the checkpoint has another architecture: {problems}. Give the config that it was trained with "
                "(config.yaml in its run folder)"
            )
        return super().load_state_dict(state_dict, strict, assign)
