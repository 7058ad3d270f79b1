"""How near generated music comes to the data, while training and after."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.generation import draw, renderer_of
from callbacks.likelihood_baselines import LikelihoodBaselines
from callbacks.loggers import run_folder
from callbacks.music_table import MusicTable
from metrics import MusicStatistics
from music import Roll


class MusicEvaluation(Callback):
    """Compares generated music with the windows of validation (or test).

    Logs, over all ranks: ``music/<statistic>`` of the samples, ``music/ratio/<statistic>`` (samples over data) and
    ``music/overlap/<statistic>`` (of the two histograms), see `metrics.MusicStatistics`; statistics that the data does
    not define are left out. With ``baselines`` also ``val/nats_per_step/independent_pitches`` and
    ``.../repeat_or_redraw`` (``test/...`` in a test): what two small models, fitted to the training pieces, give to the
    windows on which the model's own ``val/nats_per_step`` is measured.

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
            seed: noise of batch k is drawn from seed + k, so the samples do not depend on the number of devices.
            baselines: also log the likelihood of the two baselines.

        Raises:
            ValueError: a number is below 1, or every_n_validations below 0.
        """
        super().__init__()
        if min(num_samples, batch_size, every_n_validations + 1) < 1:
            raise ValueError("num_samples and batch_size must be at least 1, every_n_validations at least 0")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.every_n_validations = every_n_validations
        self.seed = seed
        self.baselines = baselines
        self._reset()

    def _reset(self) -> None:
        self._validations = 0
        self._running = False  # whether the validation at hand is evaluated
        self._drawn = False
        self._samples: MusicStatistics | None = None
        self._data: MusicStatistics | None = None
        self._data_done = False
        self._windows = 0
        self._baselines: LikelihoodBaselines | None = None
        self._baseline_nats: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start anew.

        Raises:
            MisconfigurationException: no renderer of rolls, or a module that cannot generate.
        """
        self._reset()
        if stage == "predict":
            return
        renderer = renderer_of(trainer, self)
        if not hasattr(renderer, "format") or not hasattr(pl_module, "generate"):
            raise MisconfigurationException(
                f"MusicEvaluation needs a data module of piano rolls, not {type(trainer.datamodule).__name__}, and "
                f"{type(pl_module).__name__} to have `generate`; leave the callback out"
            )
        self._samples = MusicStatistics(renderer.beats_per_bar)
        self._data = MusicStatistics(renderer.beats_per_bar)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether this validation is evaluated."""
        if trainer.sanity_checking:
            return
        every = self.every_n_validations
        self._running = self._validations % every == 0 if every else trainer.state.fn != TrainerFn.FITTING
        self._validations += 1
        self._drawn = False
        if self._running and not self._data_done:
            for metric in (self._samples, self._data):
                metric.to(pl_module.device)
            if self.baselines:
                self._baselines = LikelihoodBaselines(trainer, renderer_of(trainer, self).format)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Generate before the first batch, where averaged weights are in place whatever the order of callbacks."""
        if self._running and not self._drawn:
            self._draw(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the windows of the first validation."""
        if not self._running or self._data_done:
            return
        form = renderer_of(trainer, self).format
        windows = batch["canvas"][:, 0].cpu().numpy()
        self._windows += len(windows)
        self._data.update([Roll(window, form) for window in windows])
        if self._baselines is not None:
            self._baselines.update(windows)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the outcome."""
        if not self._running:
            return
        if not self._drawn:  # a rank without a batch
            self._draw(trainer, pl_module)
        if not self._data_done:
            windows = torch.tensor(self._windows, device=pl_module.device)
            self._windows = int(trainer.strategy.reduce(windows, reduce_op="sum"))
            self._baseline_nats = self._baselines.compute(trainer) if self._baselines is not None else {}
            self._baselines = None
            self._data_done = True
        values = {}
        for name, row in self._compared().items():
            values |= {f"music/{name}": row["generated"]}
            values |= {f"music/{kind}/{name}": row[kind] for kind in ("ratio", "overlap")}
        prefix = "test" if trainer.testing else "val"
        for name, nats in self._baseline_nats.items():
            values[f"{prefix}/nats_per_step/{name}"] = torch.tensor(nats, device=pl_module.device)
        # Equal on all ranks already; `sync_dist` keeps Lightning from warning of each.
        pl_module.log_dict(values, sync_dist=True, batch_size=1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the table outside of ``fit``."""
        if not self._running:
            return
        self._running = False
        if trainer.state.fn == TrainerFn.FITTING:
            return
        rows = self._compared()  # on all ranks
        if not trainer.is_global_zero:
            return
        model = trainer.callback_metrics.get(f"{'test' if trainer.testing else 'val'}/nats_per_step")
        table = MusicTable(
            "test" if trainer.testing else "validate",
            None if trainer.ckpt_path is None else str(trainer.ckpt_path),
            self.num_samples,
            self._windows,
            ({} if model is None else {"model": float(model)}) | self._baseline_nats,
            {name: {kind: float(value) for kind, value in row.items()} for name, row in rows.items()},
        )
        table.show()
        files = table.write(run_folder(trainer))
        print("Written to " + " and ".join(map(str, files)))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate this rank's batches, and measure them."""
        self._drawn = True
        self._samples.reset()
        form = renderer_of(trainer, self).format
        for number, first in enumerate(range(0, self.num_samples, self.batch_size)):
            if number % trainer.world_size == trainer.global_rank:
                count = min(self.batch_size, self.num_samples - first)
                canvases = draw(trainer, pl_module, first, count, self.seed + number)
                self._samples.update([Roll(canvas[0], form) for canvas in canvases.numpy()])

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
