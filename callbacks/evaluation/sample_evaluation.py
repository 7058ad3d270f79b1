"""`SampleEvaluation`: the base of callbacks that generate samples and compare them with data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.evaluation.generation import generate_samples
from callbacks.reporting.result_table import Report
from callbacks.reporting.trainer_state import run_folder
from datamodules.base import offered
from lit_models.contracts import CountsDecoding
from litscale.metrics.decoding_statistics import DecodingStatistics
from litscale.progress import progress


class SampleEvaluation(Callback, ABC):
    """Generates samples in validations (or the test) and compares them with the data that are evaluated there.

    The data are measured once, in the first validation. Samples are generated in each, with the weights of that moment
    (averaged ones, if `EMAWeightAveraging` is among the callbacks), spread over the ranks. Outside of ``fit`` a
    report is shown and written to the run's folder.
    """

    def __init__(self, num_samples: int, batch_size: int, every_n_validations: int, seed: int) -> None:
        """Check the options, which the subclasses explain.

        Raises:
            ValueError: ``num_samples`` or ``batch_size`` is below 1, or ``every_n_validations`` below 0.
        """
        super().__init__()
        if min(num_samples, batch_size, every_n_validations + 1) < 1:
            raise ValueError("num_samples and batch_size must be at least 1, every_n_validations at least 0")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.every_n_validations = every_n_validations
        self.seed = seed
        self._reset()

    # What is measured; all ranks are asked together.

    @abstractmethod
    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the measurement, in the first validation that is evaluated."""

    @abstractmethod
    def begin_samples(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset what is measured of samples, before those of an evaluation."""

    @abstractmethod
    def take_samples(self, trainer: Trainer, first: int, canvases: Tensor) -> None:
        """Measure samples ``first``, ``first + 1``, ...: uint8 ``[B, C, H, W]`` on the CPU."""

    @abstractmethod
    def take_data(self, trainer: Trainer, batch: dict[str, Any]) -> None:
        """Measure a batch of the first validation that is evaluated; its windows may overlap, see `without_overlap`."""

    @abstractmethod
    def end_data(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish measuring the data; this is called once."""

    @abstractmethod
    def outcome(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        """Return the scores to log, equal on all ranks."""

    @abstractmethod
    def report(self, trainer: Trainer, pl_module: LightningModule) -> Report:
        """Return the report for people to read; it is made on all ranks and used on rank zero."""

    def generate(self, trainer: Trainer, pl_module: LightningModule, first: int, count: int, seed: int) -> Tensor:
        """Generate the batch from sample ``first`` on, uint8 ``[B, C, H, W]`` on the CPU, and count its decoding."""
        canvases = generate_samples(trainer, pl_module, first, count, seed)
        module = offered(pl_module, CountsDecoding)
        self._decoding.update({} if module is None else module.decoding_counts())
        return canvases

    def decoding(self, prefix: str) -> dict[str, Tensor]:
        """Return ``<prefix>/decoding/<name>`` -> statistic of the decoding of the samples, equal on all ranks."""
        return {f"{prefix}/decoding/{name}": value for name, value in self._decoding.compute().items()}

    # When it is measured.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset all measurements."""
        self._reset()

    def evaluates_in(self, stage: str) -> bool:
        """Return whether anything is evaluated in a stage, for which data and module must then be checked."""
        return stage != "predict" and (stage != "fit" or self.every_n_validations > 0)

    def _reset(self) -> None:
        self._validations = 0
        self._running = False  # whether the validation at hand is evaluated
        self._generated = False
        self._begun = False
        self._data_done = False
        self._decoding = DecodingStatistics()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether this validation is evaluated, and prepare the first one that is."""
        if trainer.sanity_checking:
            return
        every = self.every_n_validations
        self._running = self._validations % every == 0 if every else trainer.state.fn != TrainerFn.FITTING
        self._validations += 1
        self._generated = False
        if self._running and not self._begun:
            self._begun = True
            self.begin(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Generate before the first batch; averaged weights are in place by then, whatever the order of callbacks."""
        if self._running and not self._generated:
            self._generate_share(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the data of the first validation that is evaluated."""
        if self._running and not self._data_done:
            self.take_data(trainer, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish measuring the data, and log the outcome."""
        if not self._running:
            return
        if not self._generated:  # a rank without a batch
            self._generate_share(trainer, pl_module)
        if not self._data_done:
            self.end_data(trainer, pl_module)
            self._data_done = True
        # Equal on all ranks already; `sync_dist` keeps Lightning from warning of each.
        pl_module.log_dict(self.outcome(trainer, pl_module), sync_dist=True, batch_size=1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and write the report outside of ``fit``."""
        if not self._running:
            return
        self._running = False
        if trainer.state.fn == TrainerFn.FITTING:
            return
        report = self.report(trainer, pl_module)
        if trainer.is_global_zero:
            report.show()
            print("Written to " + " and ".join(map(str, report.write(run_folder(trainer)))))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def _generate_share(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate this rank's batches, and measure them."""
        self._generated = True
        self._decoding.to(pl_module.device).reset()
        self.begin_samples(trainer, pl_module)
        batches = range(0, self.num_samples, self.batch_size)[trainer.global_rank :: trainer.world_size]
        hidden = not trainer.is_global_zero or trainer.progress_bar_callback is None
        for first in batches if hidden else progress(batches, "Batches of samples", len(batches), leave=False):
            count = min(self.batch_size, self.num_samples - first)
            self.take_samples(trainer, first, self.generate(trainer, pl_module, first, count, self.seed))


def summed(trainer: Trainer, pl_module: LightningModule, number: int) -> int:
    """Return the sum of a number over all ranks."""
    return int(trainer.strategy.reduce(torch.tensor(number, device=pl_module.device), reduce_op="sum"))


def without_overlap(batch: dict[str, Any]) -> dict[str, Any] | None:
    """Return the windows of a batch that do not overlap, or None if it has none; all windows if none overlap."""
    if "side_by_side" not in batch:
        return batch
    chosen = batch["side_by_side"]
    return {name: value[chosen] for name, value in batch.items()} if chosen.any() else None
