"""What all modules share: repeatable steps, finite losses, checkpoints that fit, requests answered."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torchmetrics import Metric

from lit_models.optimization import Optimization
from lit_models.sharding import gather, release, shard
from litscale.models.precision import Convert, at_least_float32
from litscale.models.state_dicts import mismatch

HALF = ("bf16-true", "16-true")
REMEDY = (
    "lower the learning rate (model's optimization.lr or base_lr), lengthen the warm-up or set "
    "trainer.gradient_clip_val, and go on with --ckpt_path last"
)


class DivergedError(FloatingPointError):
    """Weights whose loss, or score in validation, is not finite: no place to go on from."""


class GradientError(FloatingPointError):
    """A gradient that is not finite; the step is not taken."""


class LitModule(LightningModule):
    """A LightningModule whose every training step draws from a seed of its own.

    The seed of a training step is made of the run's seed (``seed_everything``), the number of the batch and the rank,
    so a resumed run draws what the uninterrupted one would have drawn, and no generator state has to be saved. What
    evaluation draws is keyed by the canvas or the image, so that batches and processes change no score.

    Under ``trainer.precision`` bf16-true and 16-true it evaluates and generates; training is refused.

    Attributes:
        network: what is trained, unless :meth:`trained` says otherwise.
        optimization: how.
        shardable: whether it trains under `ModelParallelStrategy`; then training steps use weights of a trained part
            in its forward, or after it.
        weight_options: options that bring all weights if they are given together, see :meth:`weight_files`.
    """

    network: nn.Module
    optimization: Optimization
    shardable = False
    weight_options: tuple[str, ...] = ()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Refuse: checkpoints hold weights but no options, so that the network and how it generates would be guessed.

        Raises:
            NotImplementedError: always; it names `lit_models.load_run`.
        """
        raise NotImplementedError(
            "checkpoints hold no options of the model; the config.yaml of the run folder does: use lit_models.load_run"
            f'(FOLDER, checkpoint="{checkpoint_path}")'
        )

    def trained(self) -> list[nn.Module]:
        """The networks that are trained."""
        return [self.network]

    def weight_files(self) -> dict[str, str]:
        """Option -> file, of the options that bring all weights; empty where those need a checkpoint."""
        return {}

    def blocks(self) -> Iterable[nn.Module]:
        """Parts of the networks that are compiled, and sharded, one by one."""
        return ()

    def compile_each_block(self) -> None:
        """Compile the blocks in place, so that names in checkpoints stay."""
        # blocks of all widths share one forward, and by default torch gives up on a function after eight graphs
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        for block in self.blocks():
            block.compile(dynamic=True)

    def setup(self, stage: str) -> None:
        """Refuse to train in half precision alone.

        Raises:
            ValueError: trainer.precision is bf16-true or 16-true.
        """
        if stage == "fit" and self.trainer.precision in HALF:
            raise ValueError(
                f"trainer.precision {self.trainer.precision} cannot train, as most updates are too small to change a "
                "weight in half precision, or are no numbers: give bf16-mixed (validate, test and predict may have it)"
            )

    def _apply(self, fn: Convert, recurse: bool = True) -> Self:
        """Convert or move the weights; sums of metrics stay in float32 or wider."""
        for child in self.children() if recurse else ():
            measures = any(isinstance(part, Metric) for part in child.modules())
            child._apply(at_least_float32(fn) if measures else fn)
        return super()._apply(fn, recurse=False)

    def configure_model(self) -> None:
        """Shard what is trained, where the strategy is `ModelParallelStrategy`.

        Raises:
            ValueError: the module cannot be sharded, weights are to be averaged, or layers to be split.
        """
        if self.device_mesh is None:  # any other strategy
            return
        if not self.shardable:
            raise ValueError(f"{type(self).__name__} cannot be sharded: give trainer.strategy ddp")
        for callback in self.trainer.callbacks:
            if isinstance(callback, WeightAveraging):
                raise ValueError(
                    f"{type(callback).__name__} needs a copy of all weights, but the strategy shards them: leave it "
                    "out of trainer.callbacks, or give trainer.strategy ddp"
                )
        shard(self.trained(), self.blocks(), self.device_mesh)

    def on_validation_model_eval(self) -> None:
        """Switch to evaluation, with whole weights: processes may have different numbers of batches."""
        super().on_validation_model_eval()
        gather(self)

    def on_test_model_eval(self) -> None:
        """As for validation."""
        super().on_test_model_eval()
        gather(self)

    def on_predict_model_eval(self) -> None:
        """As for validation."""
        super().on_predict_model_eval()
        gather(self)

    def on_validation_end(self) -> None:
        """Back to sharded weights."""
        release(self)

    on_test_end = on_predict_end = on_validation_end

    @property
    def run_seed(self) -> int:
        """The run's seed (``seed_everything``), 0 where there is none."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    def seed_step(self, number: int) -> None:
        """Seed torch for training batch ``number`` of this rank."""
        words = (self.run_seed, 0, number, self.global_rank)
        mixed = 0
        for word in words:
            mixed = (mixed * 0x9E3779B1 + word + 0x7F4A7C15) % 2**63
        torch.manual_seed(mixed)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step and set its weight decay."""
        self.optimization.set_weight_decay(self.trainer)
        self.seed_step(self.trainer.fit_loop.epoch_loop.total_batch_idx)

    def finite(self, loss: Tensor) -> Tensor:
        """The loss, if it is a number.

        Raises:
            DivergedError: it is not; the step is not taken.
        """
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss is {loss.item()} at step {self.global_step}: {REMEDY}")
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Refuse a step by gradients that are not finite; with float16, the loss scaler leaves such steps out itself.

        Raises:
            GradientError: a gradient is infinite or not a number; the parameter is named, and the step not taken.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        if torch.isfinite(nn.utils.get_total_norm(list(gradients.values()))):
            return
        names = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        raise GradientError(
            f"the gradient of {names[0] if names else 'all parameters together'} is not finite at step "
            f"{self.global_step}, so the step is not taken: {REMEDY}"
        )

    def on_train_start(self) -> None:
        """Let the options that a run is resumed with win over those in its checkpoint."""
        self.optimization.reapply(self.trainer)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule."""
        return self.optimization.configure(self, nn.ModuleList(self.trained()))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights.

        Raises:
            ValueError: the checkpoint is of another architecture; the entries that differ are named.
        """
        if strict and (problems := mismatch(self.state_dict(), state_dict)):
            raise ValueError(
                f"the checkpoint is of another architecture: {problems}. Give the config that it was trained with "
                "(config.yaml in its run folder)"
            )
        return super().load_state_dict(state_dict, strict, assign)


class GeneratingModule(LitModule, ABC):
    """A module that generates canvases.

    Attributes:
        generation: how, a frozen dataclass.
        record_frames: whether ``predict`` keeps the steps of its samples, for animations.
    """

    generation: Any
    record_frames: bool = False

    @abstractmethod
    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        canvas: Tensor | None = None,
        known: Tensor | None = None,
        seed: int | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases.

        Args:
            label: int64 ``[B]``.
            batch_size: B, where neither label nor canvas gives it.
            canvas: uint8 ``[B, C, H, W]`` whose known cells are kept.
            known: bool ``[B, C, H, W]``.
            seed: makes the result repeatable, whatever else draws random numbers.
            frames: is given the canvas and the mask of finished cells after each step, on the CPU.

        Returns:
            uint8 ``[B, C, H, W]`` on the module's device.
        """

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Generate a batch of requests.

        Args:
            batch: ``canvas`` uint8 ``[B, C, H, W]``, ``known`` bool of that shape, ``index`` int64 ``[B]``, ``seed``
                int and optionally ``label`` int64 ``[B]``.
            batch_idx: unused.

        Returns:
            ``canvas``, ``known``, ``index``, ``label``, the ``settings`` used, and ``frames`` (pairs of canvas and
            finished cells after each step) where ``record_frames`` is set.
        """
        frames: list[tuple[Tensor, Tensor]] | None = [] if self.record_frames else None
        given = {name: batch[name] for name in ("canvas", "known", "seed")}
        return {
            "canvas": self.generate(batch.get("label"), **given, frames=frames),
            "known": batch["known"],
            "index": batch["index"],
            "label": batch.get("label"),
            "settings": asdict(self.generation) | {"seed": batch["seed"]},
            "frames": frames,
        }
