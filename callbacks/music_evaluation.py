"""`MusicEvaluation`: generated music compared with the data and the training set, and likelihood baselines."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.evaluation.likelihood_baselines import LikelihoodBaselines
from callbacks.evaluation.sample_evaluation import SampleEvaluation, summed, without_overlap
from callbacks.evaluation.set_comparison import ComparedSets, SetComparison, remark, set_numbers, set_tables
from callbacks.reporting.result_table import Column, Report, ResultTable
from callbacks.reporting.trainer_state import checkpoint_of, stage_of
from datamodules.base import MeteredData, RenderedData, class_count, class_names_of, data_of, offered, required
from lit_models.contracts import Generates, ReadsLabels
from litscale.metrics import MusicStatistics
from litscale.music import Roll, RollFormat, RollRenderer


class MusicEvaluation(SampleEvaluation):
    """Compares generated music with the windows of validation (or test).

    Logs, over all ranks: ``music/<statistic>`` of the samples, ``music/ratio/<statistic>`` (samples over data) and
    ``music/histogram_overlap/<statistic>``, see `MusicStatistics`. Statistics that the data does
    not define are left out, outside of ``fit`` also those that the samples do not define. With ``baselines`` also
    ``val/nats_per_step/independent_pitches`` and ``.../repeat_or_redraw`` (``test/...`` in a test): the nats of
    two small models, fitted to the training pieces, over the same steps as the model's own ``val/nats_per_step``. If
    the samples are decoded in parallel, ``music/decoding/passes_per_patch`` and the like are logged, see
    `litscale.models.fractal.decoding_summary`.

    With ``sets``, ``validate`` and ``test`` also compare the windows as sets: ``music/overlapping_area/<feature>`` and
    ``music/kl_divergence/<feature>`` of the samples and the data, see `litscale.music.set_distances`, and
    ``music/training/...``, the same for the training pieces, with as many windows as there are samples. How much of the
    samples was copied is ``music/copies/generated/longest_run``, ``longest_run_max`` and ``found``, beside
    ``music/copies/data/...`` of the data's windows, see `callbacks.evaluation.set_comparison.copied`. Where batches
    have a ``label`` that the module reads, ``music/nearest_class`` is the share of samples that are nearest to the
    class for which they were generated, and ``music/training/nearest_class`` the same for as many windows of the
    training pieces, if the data module can tell their classes; see
    `callbacks.evaluation.class_comparison.compared_classes`.

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
        sets: bool = True,
        clamp_weights: str | None = None,
    ) -> None:
        """Check the options.

        Args:
            num_samples: number of samples of all devices together.
            batch_size: number of samples generated at once. The devices share the batches, so with n devices
                num_samples should be a multiple of n batches.
            every_n_validations: number of validations of ``fit`` from one evaluation to the next, beginning with the
                first; 0 evaluates only in ``validate`` and ``test``.
            seed: seed of the noise.
            baselines: also log the likelihood of the two baselines.
            sets: outside of ``fit``, also compare the set of samples with the data, and search for copies of training
                pieces.
            clamp_weights: weights file of CLaMP 2, for ``music/frechet_music_distance`` with ``sets``; this needs
                the package frechet-music-distance.

        Raises:
            ValueError: a number is below 1, every_n_validations below 0, or clamp_weights given without sets.
        """
        super().__init__(num_samples, batch_size, every_n_validations, seed)
        if clamp_weights is not None and not sets:
            raise ValueError("clamp_weights is for the comparison of sets: set the option sets to true")
        self.baselines, self.sets, self.clamp_weights = baselines, sets, clamp_weights

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the module and the data, and reset all measurements.

        Raises:
            MisconfigurationException: the data module has no renderer of rolls, or the module cannot generate.
            ModuleNotFoundError: ``clamp_weights`` is given, and the package that reads them is not installed.
            FileNotFoundError: the file of ``clamp_weights`` does not exist.
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
        self._format, metered = renderer.format, offered(data_of(trainer), MeteredData)
        self._meter = (lambda label: None) if metered is None else metered.sample_meter
        self._samples, self._data = MusicStatistics(), MusicStatistics()
        reads_labels = offered(pl_module, ReadsLabels)
        self._classes = class_count(data_of(trainer)) if reads_labels and reads_labels.label_classes() else 0
        self._sets: SetComparison | None = None
        if self.sets and stage != "fit":
            named = class_names_of(data_of(trainer))
            names = named + [str(number) for number in range(len(named), self._classes)] if self._classes else []
            self._sets = SetComparison(self._format, self.clamp_weights, names)
        self._compared_sets = ComparedSets()
        self._windows = 0
        self._baselines: LikelihoodBaselines | None = None
        self._baseline_nats: dict[str, float] = {}

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the baselines to the training pieces."""
        for metric in (self._samples, self._data):
            metric.to(pl_module.device)
        if self.baselines:
            self._baselines = LikelihoodBaselines(trainer, self._format)

    def begin_samples(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the statistics of the samples."""
        self._samples.reset()

    def take_samples(self, trainer: Trainer, first: int, canvases: Tensor) -> None:
        """Add samples, uint8 ``[B, 1, pitch, step]``, to the statistics and to the set that is compared."""
        index = torch.arange(first, first + len(canvases))
        labels = index % self._classes if self._classes else None
        forms = [self._format_of(None if labels is None else int(labels[row])) for row in range(len(index))]
        self._samples.update([Roll(canvas[0], form) for canvas, form in zip(canvases.numpy(), forms, strict=True)])
        if self._sets is not None:
            self._sets.generated.add(canvases, labels)

    def take_data(self, trainer: Trainer, batch: dict[str, Any]) -> None:
        """Add the steps that count to the baselines, and windows side by side, in their meters, to all the rest."""
        if self._baselines is not None:
            counted = batch["counted"].cpu().numpy() if "counted" in batch else None
            self._baselines.update(batch["canvas"][:, 0].cpu().numpy(), counted)
        chosen = without_overlap(batch)
        if chosen is None:
            return
        windows = chosen["canvas"][:, 0].cpu().numpy()
        meters = chosen["beats_per_bar"].tolist() if "beats_per_bar" in chosen else [None] * len(windows)
        self._windows += len(windows)
        if self._sets is not None:
            self._sets.data.add(chosen["canvas"], chosen.get("label"))
        formats = [self._format.with_meter(meter) for meter in meters]
        self._data.update([Roll(window, form) for window, form in zip(windows, formats, strict=True)])

    def end_data(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum the windows, and compute the likelihood of the baselines, over all ranks."""
        self._windows = summed(trainer, pl_module, self._windows)
        self._baseline_nats = self._baselines.compute(trainer) if self._baselines is not None else {}
        self._baselines = None

    def outcome(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        """Return name -> value for statistics, comparisons and baselines, with the names that the class documents."""
        values: dict[str, Tensor] = {}
        for name, row in self._compared().items():
            values |= {f"music/{name}": row["generated"]}
            values |= {f"music/{kind}/{name}": row[kind] for kind in ("ratio", "histogram_overlap")}
        if self._sets is not None:
            self._compared_sets = self._sets.compute(trainer, pl_module)
            values |= {f"music/{name}": torch.tensor(value) for name, value in self._compared_sets.logged().items()}
        if trainer.state.fn != TrainerFn.FITTING:
            # Silent samples have no pitches, and the data may have a mean of 0: no score then, which is no failure.
            # Callbacks of `fit` that watch a score need it each time.
            values = {name: value for name, value in values.items() if value.isfinite()}
        _, prefix = stage_of(trainer)
        for name, nats in self._baseline_nats.items():
            values[f"{prefix}/nats_per_step/{name}"] = torch.tensor(nats, device=pl_module.device)
        return values | self.decoding("music")

    def report(self, trainer: Trainer, pl_module: LightningModule) -> Report:
        """Return the report on the outcome, with the model's own likelihood."""
        stage, prefix = stage_of(trainer)
        model = trainer.callback_metrics.get(f"{prefix}/nats_per_step")
        return music_report(
            stage,
            checkpoint_of(trainer),
            samples=self.num_samples,
            windows=self._windows,
            nats_per_step=({} if model is None else {"model": float(model)}) | self._baseline_nats,
            statistics={
                name: {kind: float(value) for kind, value in row.items()} for name, row in self._compared().items()
            },
            sets=self._compared_sets,
        )

    def _format_of(self, label: int | None) -> RollFormat:
        """Return the format of samples of a class, in its meter."""
        return self._format.with_meter(self._meter(label))

    def _compared(self) -> dict[str, dict[str, Tensor]]:
        """Return the ``statistics`` for `music_report`, over all ranks, without those that the data do not define."""
        generated, data, compared = self._samples.compute(), self._data.compute(), self._samples.compare(self._data)
        return {
            name: {
                "generated": generated[name],
                "data": data[name],
                "ratio": compared[f"{name}_ratio"],
                "histogram_overlap": compared[f"{name}_histogram_overlap"],
            }
            for name in data
            if not data[name].isnan()
        }


def music_report(
    stage: str,
    checkpoint: str | None,
    *,
    samples: int,
    windows: int,
    nats_per_step: dict[str, float],
    statistics: dict[str, dict[str, float]],
    sets: ComparedSets,
) -> Report:
    """Return the outcome as a report.

    Args:
        stage: ``validate`` or ``test``.
        checkpoint: path of the evaluated weights, if they were loaded.
        samples: number of generated samples.
        windows: number of windows of the data.
        nats_per_step: ``model`` and the baselines -> nats; lower is better.
        statistics: name -> ``generated``, ``data``, ``ratio``, ``histogram_overlap``.
        sets: the comparison of sets; empty if there is none.
    """
    likelihoods = {name.replace("_", " "): {"nats": value} for name, value in nats_per_step.items()}
    likelihood = ResultTable(
        "nats per step (lower is better)", {"nats": Column("")}, likelihoods, caption=f"Likelihood ({stage})"
    )
    columns = {kind: Column(kind.replace("_", " ")) for kind in ("generated", "data", "ratio", "histogram_overlap")}
    title = f"{samples} generated samples beside {windows} windows of the data"
    compared = ResultTable("statistic", columns, statistics, title)
    tables = [likelihood, compared] if nats_per_step else [compared]
    settings = {"stage": stage, "checkpoint": checkpoint, "samples": samples, "windows": windows}
    numbers = {"nats_per_step": nats_per_step, "statistics": statistics} | set_numbers(sets)
    heading = f"Music evaluation ({stage})"
    return Report(
        f"music_{stage}",
        heading,
        tables + set_tables(sets),
        settings | numbers,
        checkpoint=checkpoint,
        remark=remark(sets),
    )
