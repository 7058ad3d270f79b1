"""`MusicEvaluation`: statistics of generated music compared with those of the data, and likelihood baselines."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.evaluation.likelihood_baselines import LikelihoodBaselines
from callbacks.evaluation.sample_evaluation import SampleEvaluation, summed
from callbacks.reporting.result_table import Column, Report, ResultTable
from callbacks.reporting.trainer_state import checkpoint_of, stage_of
from datamodules.base import RenderedData, data_of, required
from lit_models.contracts import Generates
from litscale.metrics import MusicStatistics
from litscale.music import Roll, RollRenderer


class MusicEvaluation(SampleEvaluation):
    """Compares generated music with the windows of validation (or test).

    Logs, over all ranks: ``music/<statistic>`` of the samples, ``music/ratio/<statistic>`` (samples over data) and
    ``music/overlap/<statistic>`` (of the two histograms), see `MusicStatistics`. Statistics that the data does
    not define are left out, outside of ``fit`` also those that the samples do not define. With ``baselines`` also
    ``val/nats_per_step/independent_pitches`` and ``.../repeat_or_redraw`` (``test/...`` in a test): what two small
    models, fitted to the training pieces, give to the windows on which the model's own ``val/nats_per_step`` is
    measured. Where the samples are decoded in parallel, ``music/decoding/passes_per_patch`` and the like say what that
    took, see `litscale.models.fractal.decoding_summary`.

    Statistics of the data and baselines are measured once, in the first validation. Outside of ``fit`` the outcome is
    also printed as a table and written to the run's folder as ``music_validate.json`` and ``.md`` (``music_test...``).
    """

    def __init__(
        self,
        num_samples: int = 64,
        batch_size: int = 16,
        every_n_validations: int = 1,
        seed: int = 0,
        baselines: bool = True,
    ) -> None:
        """Check the options.

        Args:
            num_samples: samples of all devices together.
            batch_size: samples generated at once; devices take turns, so for n devices num_samples had better be a
                multiple of n times as many.
            every_n_validations: in ``fit``, evaluate in every so many validations, the first included; 0 leaves it to
                ``validate`` and ``test``.
            seed: of the noise.
            baselines: also log the likelihood of the two baselines.

        Raises:
            ValueError: a number is below 1, or every_n_validations below 0.
        """
        super().__init__(num_samples, batch_size, every_n_validations, seed)
        self.baselines = baselines

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start from the beginning.

        Raises:
            MisconfigurationException: no renderer of rolls, or a module that cannot generate.
        """
        super().setup(trainer, pl_module, stage)
        if not self.evaluates_in(stage):
            return
        required(pl_module, Generates, self)
        renderer = required(data_of(trainer), RenderedData, self).renderer
        if not isinstance(renderer, RollRenderer):
            raise MisconfigurationException(
                f"MusicEvaluation needs a data module of piano rolls, not {type(data_of(trainer)).__name__}: leave "
                "it out"
            )
        self._format = renderer.format
        self._samples, self._data = MusicStatistics(), MusicStatistics()
        self._windows = 0
        self._baselines: LikelihoodBaselines | None = None
        self._baseline_nats: dict[str, float] = {}

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the baselines."""
        for metric in (self._samples, self._data):
            metric.to(pl_module.device)
        if self.baselines:
            self._baselines = LikelihoodBaselines(trainer, self._format)

    def begin_samples(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the samples of the last time."""
        self._samples.reset()

    def take_samples(self, trainer: Trainer, first: int, canvases: Tensor) -> None:
        """Measure samples."""
        self._samples.update([Roll(canvas[0], self._format) for canvas in canvases.numpy()])

    def take_data(self, trainer: Trainer, batch: dict[str, Any]) -> None:
        """Take in windows, each in the meter of its piece."""
        windows = batch["canvas"][:, 0].cpu().numpy()
        meters = batch["beats_per_bar"].tolist() if "beats_per_bar" in batch else [None] * len(windows)
        self._windows += len(windows)
        formats = [self._format.with_meter(meter) for meter in meters]
        self._data.update([Roll(window, form) for window, form in zip(windows, formats, strict=True)])
        if self._baselines is not None:
            self._baselines.update(windows)

    def end_data(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up over the ranks."""
        self._windows = summed(trainer, pl_module, self._windows)
        self._baseline_nats = self._baselines.compute(trainer) if self._baselines is not None else {}
        self._baselines = None

    def outcome(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        """Statistics and the likelihood of the baselines, as the class names them."""
        values: dict[str, Tensor] = {}
        for name, row in self._compared().items():
            values |= {f"music/{name}": row["generated"]}
            values |= {f"music/{kind}/{name}": row[kind] for kind in ("ratio", "overlap")}
        if trainer.state.fn != TrainerFn.FITTING:
            # Silent samples have no pitches, and the data may have a mean of 0: no score then, which is no failure.
            # Callbacks of `fit` that watch a score need it each time.
            values = {name: value for name, value in values.items() if value.isfinite()}
        _, prefix = stage_of(trainer)
        for name, nats in self._baseline_nats.items():
            values[f"{prefix}/nats_per_step/{name}"] = torch.tensor(nats, device=pl_module.device)
        return values | self.decoding("music")

    def report(self, trainer: Trainer, pl_module: LightningModule) -> Report:
        """The outcome beside the model's own likelihood."""
        stage, prefix = stage_of(trainer)
        model = trainer.callback_metrics.get(f"{prefix}/nats_per_step")
        return music_report(
            stage,
            checkpoint_of(trainer),
            self.num_samples,
            self._windows,
            ({} if model is None else {"model": float(model)}) | self._baseline_nats,
            {name: {kind: float(value) for kind, value in row.items()} for name, row in self._compared().items()},
        )

    def _compared(self) -> dict[str, dict[str, Tensor]]:
        """Statistic -> ``generated``, ``data``, ``ratio``, ``overlap``, over all ranks, where the data defines it."""
        generated, data, compared = self._samples.compute(), self._data.compute(), self._samples.compare(self._data)
        return {
            name: {
                "generated": generated[name],
                "data": data[name],
                "ratio": compared[f"{name}_ratio"],
                "overlap": compared[f"{name}_overlap"],
            }
            for name in data
            if not data[name].isnan()
        }


def music_report(
    stage: str,
    checkpoint: str | None,
    samples: int,
    windows: int,
    nats_per_step: dict[str, float],
    statistics: dict[str, dict[str, float]],
) -> Report:
    """The outcome to be read.

    Args:
        stage: ``validate`` or ``test``.
        checkpoint: path of the evaluated weights, if they were loaded.
        samples: number of generated samples.
        windows: number of windows of the data.
        nats_per_step: ``model`` and the baselines -> nats; lower is better.
        statistics: name -> ``generated``, ``data``, ``ratio``, ``overlap``.
    """
    likelihoods = {name.replace("_", " "): {"nats": value} for name, value in nats_per_step.items()}
    likelihood = ResultTable(
        "nats per step (lower is better)", {"nats": Column("")}, likelihoods, caption=f"Likelihood ({stage})"
    )
    columns = {kind: Column(kind) for kind in ("generated", "data", "ratio", "overlap")}
    title = f"{samples} generated samples beside {windows} windows of the data"
    compared = ResultTable("statistic", columns, statistics, title)
    tables = [likelihood, compared] if nats_per_step else [compared]
    facts = {"stage": stage, "checkpoint": checkpoint, "samples": samples, "windows": windows}
    numbers = {"nats_per_step": nats_per_step, "statistics": statistics}
    return Report(f"music_{stage}", f"Music evaluation ({stage})", tables, facts | numbers, checkpoint)
