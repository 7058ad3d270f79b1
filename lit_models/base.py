"""What all modules share: repeatable steps, finite losses, checkpoints that fit, requests answered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_models.optimization import Optimization
from models.state_dicts import differences


class LitModule(LightningModule):
    """A LightningModule whose every step draws from a seed of its own.

    The seed of a training step is made of the run's seed (``seed_everything``), the number of the batch and the rank,
    so a resumed run draws what the uninterrupted one would have drawn, and no generator state has to be saved.

    Attributes:
        network: what is trained.
        optimization: how.
    """

    network: nn.Module
    optimization: Optimization

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

    def on_train_start(self) -> None:
        """Let the options that a run is resumed with win over those in its checkpoint."""
        self.optimization.reapply(self.trainer)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule."""
        return self.optimization.configure(self, self.network)

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


class GeneratingModule(LitModule):
    """A module that generates canvases.

    Attributes:
        generation: how, a frozen dataclass.
        record_frames: whether ``predict`` keeps the steps of its samples, for animations.
    """

    generation: Any
    record_frames: bool = False

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
        raise NotImplementedError

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
