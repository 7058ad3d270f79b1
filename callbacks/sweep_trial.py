"""`SweepTrial`: a training reports its scores to a sweep, and ends if they are not promising."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.reporting.trainer_state import is_trial
from litscale.storage.sweep_record import report


class SweepTrial(Callback):
    """Reports the score of each validation to a sweep, and ends the training if the sweep's pruner says so.

    ``litscale sweep`` adds it to each of its trials; the run's ``config.yaml`` leaves it out. A validation that is run
    again, because the training was interrupted, changes nothing.
    """

    def __init__(self, sweep: str, number: int) -> None:
        """Record the sweep and the number of the trial.

        Args:
            sweep: folder of the sweep.
            number: number of the trial.
        """
        super().__init__()
        self.sweep, self.number = Path(sweep), number

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the score, and end the training after this validation if the trial is pruned.

        Raises:
            ValueError: nothing is logged under the metric's name.
        """
        if trainer.sanity_checking or is_trial(trainer):
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        pruned = trainer.is_global_zero and report(self.sweep, self.number, trainer.global_step, scores)
        if trainer.strategy.broadcast(pruned):
            rank_zero_info(f"trial {self.number} is pruned at step {trainer.global_step}")
            trainer.should_stop = True
