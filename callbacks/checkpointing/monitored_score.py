"""`MonitoredScore`: the score of validations by which the best weights of a training are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_models.base import REMEDY, DivergedError
from litscale.storage.checkpoints import read_checkpoint


class MonitoredScore:
    """Compares the score of each validation with the best so far, which ``best.ckpt`` records.

    Args:
        monitor: name of the score; None for no score, so that no weights are the best.
        mode: ``min`` if a lower score is better, ``max`` if a higher one is.

    Attributes:
        current: score of the current weights; None if they were not validated.
        best: the best score so far.
    """

    def __init__(self, monitor: str | None, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.current: float | None = None
        self.best: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the entry of a checkpoint: the monitor, its mode and the score of the weights."""
        return {"monitor": self.monitor, "mode": self.mode, "score": self.current}

    def read_best(self, path: Path, key: str) -> None:
        """Read the best score from the entry of a callback in a ``best.ckpt``, if its monitor and mode are the same."""
        self.best = None
        if self.monitor is None or not path.exists():
            return
        try:
            state = read_checkpoint(path, "the best checkpoint so far,")["callbacks"][key]
        except (ValueError, KeyError) as error:
            rank_zero_warn(f"{path} gives no score ({error}), so the next validation replaces it")
            return
        if (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.best = state["score"]

    def check(self, trainer: Trainer) -> None:
        """Refuse scores that are not finite: the monitor's, or without a monitor all whose names begin with ``val``.

        Raises:
            DivergedError: a score is not finite.
        """
        for name, score in trainer.callback_metrics.items():
            judged = name == self.monitor or (self.monitor is None and name.startswith("val"))
            if judged and not torch.isfinite(score):
                raise DivergedError(
                    f"{name} is {float(score)} at step {trainer.global_step}, so the weights are not saved: {REMEDY}"
                )

    def improves(self, trainer: Trainer) -> bool:
        """Record the score of the validation that has ended, and return on all processes whether it is the best so far.

        Raises:
            MisconfigurationException: nothing is logged under the monitor's name.
        """
        if self.monitor is None:
            return False
        scores = trainer.callback_metrics
        if self.monitor not in scores:
            raise MisconfigurationException(
                f"checkpoints.monitor: nothing is logged as {self.monitor}; there are {', '.join(sorted(scores))}"
            )
        self.current = float(scores[self.monitor])
        sign = 1 if self.mode == "min" else -1
        return trainer.strategy.broadcast(self.best is None or sign * self.current < sign * self.best)
