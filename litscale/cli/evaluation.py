"""The callback that every evaluation from the command line has."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.evaluation.evaluated_weights import EvaluatedWeights, evaluated_weights
from litscale.cli.signals import Terminated, end_at_sigterm


class Evaluation(Callback):
    """Records which weights are evaluated, and ends the evaluation at SIGTERM.

    Attributes:
        weights: the evaluated weights; None before the evaluation starts, and if there is nothing to evaluate.
        shown_checkpoint: the checkpoint that results name if a copy of it is evaluated; else None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: EvaluatedWeights | None = None
        self.shown_checkpoint: Path | None = None
        self._loaded_step: int | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the step of the checkpoint that was loaded."""
        self._loaded_step = checkpoint["global_step"]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the weights, and replace Lightning's handler of SIGTERM, which would let the evaluation finish.

        Raises:
            RuntimeError: the checkpoint was overwritten, such as by a training, while it was read.
        """
        end_at_sigterm()
        self.weights = evaluated_weights(trainer, pl_module)
        record = self.weights.record
        if record is not None and self._loaded_step not in (None, record.step):
            raise RuntimeError(
                f"--ckpt_path {record.checkpoint} was overwritten while it was read (step {self._loaded_step}, now "
                f"{record.step}): run this again, or evaluate a copy"
            )
        if record is not None and self.shown_checkpoint is not None:
            shown = str(self.shown_checkpoint.resolve())
            self.weights = replace(self.weights, record=replace(record, checkpoint=shown))
            trainer.ckpt_path = shown

    on_test_start = on_predict_start = on_validation_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the processes that this one started for other devices, too, if SIGTERM ends the evaluation."""
        if isinstance(exception, Terminated) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
