"""`LikelihoodBaselines`: the likelihood of rolls under two small models."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch import Trainer

from datamodules.base import RollData, data_of, required
from litscale.music import IndependentPitches, RepeatOrRedraw, RollFormat

MODELS: dict[str, type[IndependentPitches | RepeatOrRedraw]] = {
    "independent_pitches": IndependentPitches,
    "repeat_or_redraw": RepeatOrRedraw,
}


class LikelihoodBaselines:
    """Computes nats per step of `music.IndependentPitches` and `music.RepeatOrRedraw`, fitted to the training pieces.

    Rank zero fits the models and sends them to the others; all ranks must call the constructor and `compute` together.

    Args:
        trainer: the trainer; its data module's ``rolls("train")`` yields whole pieces, uint8 ``[pitch, step]``.
        form: alphabet and hold symbol of the rolls.

    Raises:
        MisconfigurationException: the data module has no ``rolls``.
    """

    def __init__(self, trainer: Trainer, form: RollFormat) -> None:
        data = required(data_of(trainer), RollData, self, "set the option baselines to false")
        fitted: dict[str, IndependentPitches | RepeatOrRedraw] = {}
        if trainer.is_global_zero:
            rolls = list(data.rolls("train"))
            fitted = {name: model.fit(rolls, form.alphabet, form.hold) for name, model in MODELS.items()}
        self._models = trainer.strategy.broadcast(fitted)
        self._nats = dict.fromkeys(MODELS, 0.0)
        self._steps = 0

    def update(self, windows: np.ndarray, counted: np.ndarray | None = None) -> None:
        """Add the nats of windows, each scored as a piece of its own, as a model sees it.

        Args:
            windows: uint8 ``[B, pitch, step]``.
            counted: bool ``[B, step]``, the steps whose nats count; None for all.
        """
        steps = np.ones((len(windows), windows.shape[-1]), bool) if counted is None else counted
        for window, chosen in zip(windows, steps, strict=True):
            for name, model in self._models.items():
                self._nats[name] += float(model.column_nats(window)[chosen].sum())
        self._steps += int(steps.sum())

    def compute(self, trainer: Trainer) -> dict[str, float]:
        """Return name of the baseline -> nats per counted step of all ranks; NaN without windows."""
        sums = [*self._nats.values(), float(self._steps)]
        table = trainer.strategy.reduce(
            torch.tensor(sums, dtype=torch.float32, device=trainer.strategy.root_device), reduce_op="sum"
        )
        *nats, steps = table.tolist()
        return {name: total / steps if steps else float("nan") for name, total in zip(self._nats, nats, strict=True)}
