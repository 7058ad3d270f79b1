"""`Checkpoints`: when a run is saved, under which name, and when it must not be."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from filelock import BaseFileLock
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.checkpointing.files import (
    NonFiniteError,
    copy_moments,
    discard_previous,
    keep_previous,
    restore_previous,
    use_checkpoint_files,
)
from callbacks.checkpointing.interruption import Action, Interruption
from callbacks.checkpointing.manifest import begin_manifest, end_manifest, send_manifest
from callbacks.checkpointing.monitored_score import MonitoredScore
from callbacks.checkpointing.progress import (
    is_validation_interrupted,
    mark_validation_interrupted,
    remove_unfinished_batches,
)
from callbacks.reporting.trainer_state import is_trial, resumed_checkpoint, run_folder
from lit_models.base import DivergedError, GradientError
from litscale.storage.manifest import ManifestWriter
from litscale.storage.run_folders import (
    checkpoint_in,
    clear_run_folder,
    goes_on,
    lock_run_folder,
    refuse_used_folder,
)


class Checkpoints(Checkpoint):
    """Saves a training so that it can resume after any interruption, and never replaces a checkpoint by a worse one.

    In ``checkpoints`` of the run folder there are

    - ``last.ckpt``, the newest finished optimiser step. It is written every ``minutes``, at the end of each epoch and
      of the training, before each validation, and where a run is interrupted. A run that resumes from a save before a
      validation runs this validation again. Ctrl-C, SIGTERM and SIGUSR1 save after the step that is under way; during
      a validation, and at the second signal, the process does not wait. An exception saves the step before.
    - ``best.ckpt``, the weights with the best ``monitor`` so far. Nothing else writes it.

    Weights, moving averages and moments that are not finite are never saved, nor are weights whose loss or score is not
    finite. Files appear whole or not at all (`callbacks.checkpointing.files.CheckpointFiles`).

    One run at a time owns a folder. A run that does not resume a checkpoint of the folder is refused if the folder has
    another run's checkpoints, unless ``overwrite`` is set; then those and the results of that run are removed when the
    training starts. ``manifest.json`` says what was run in the folder, and how it ended (`litscale.storage.manifest`).

    After Ctrl-C the process ends with status 130, after SIGTERM with 143. SIGUSR1 saves, and the run continues; in a
    job of SLURM it also requeues the job, as Lightning does.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: str = "min",
        minutes: float = 10.0,
        every_n_steps: int | None = None,
        overwrite: bool = False,
    ) -> None:
        """Check the options.

        Args:
            monitor: the score of ``best.ckpt``, a name that is logged in validation; null = no ``best.ckpt``.
            mode: ``min`` if a lower score is better, ``max`` if a higher one is.
            minutes: the longest time between two saves of ``last.ckpt``; 0 saves after each step.
            every_n_steps: also save ``last.ckpt`` each time after this many optimiser steps.
            overwrite: replace the run whose checkpoints are in the run folder.

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f"checkpoints.mode must be min or max, not {mode!r}")
        if minutes < 0 or (every_n_steps is not None and every_n_steps < 1):
            raise ValueError(
                f"checkpoints.minutes must not be negative and every_n_steps at least 1, not {minutes} and "
                f"{every_n_steps}"
            )
        self.minutes, self.every_n_steps = minutes, every_n_steps
        self.overwrite = overwrite
        self._score = MonitoredScore(monitor, mode)
        self._lock: BaseFileLock | None = None
        self._manifest: ManifestWriter | None = None  # on rank zero, while the folder is locked
        self._folder: Path | None = None  # of the fit that this object has begun
        self._resumed_step: int | None = None
        self._validation_due = False  # the run that is resumed was interrupted in a validation
        self._extra_steps = 0  # that Lightning must see ahead to run the last validation again
        self._interruption: Interruption | None = None  # there is one from the first step to the last

    @property
    def best_model_path(self) -> str:
        """The path of ``best.ckpt``, which Lightning asks for; empty if there is none."""
        return "" if self._folder is None or not self._path("best").exists() else str(self._path("best"))

    def _path(self, name: str) -> Path:
        """Return the file of ``last`` or ``best``, once a fit has begun."""
        assert self._folder is not None
        return checkpoint_in(self._folder, name)

    # A fit begins and ends.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the run folder, on rank zero.

        Raises:
            RunFolderError: another run has locked the folder.
            OSError: the folder cannot be made.
        """
        use_checkpoint_files(trainer)
        if stage == "fit" and not is_trial(trainer) and trainer.is_global_zero and self._lock is None:
            self._lock = lock_run_folder(run_folder(trainer).resolve())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that no other run's checkpoints lie in the folder, and begin the manifest.

        Which checkpoint is resumed is known only now.

        Raises:
            RunFolderError: another run's checkpoints lie in the folder.
            OSError: the manifest cannot be written.
        """
        folder = run_folder(trainer).resolve()
        if not (is_trial(trainer) or self.overwrite or self._folder == folder):
            refuse_used_folder(folder, resumed_checkpoint(trainer))
        self._folder = folder
        if not is_trial(trainer):
            self._manifest = begin_manifest(trainer, folder)
        # Lightning would not begin a run that has made all of its steps, even if the last validation is left to do.
        self._extra_steps = int(self._validation_due and self._resumed_step == trainer.max_steps)
        trainer.fit_loop.epoch_loop.max_steps += self._extra_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear a folder that is overwritten, read the best score so far, and listen to signals.

        Raises:
            MisconfigurationException: the run does not begin at the step of the checkpoint that it resumes.
        """
        if is_trial(trainer):
            return
        if trainer.ckpt_path and trainer.global_step != self._resumed_step:
            raise MisconfigurationException(
                f"the run resumes step {self._resumed_step}, but begins at step {trainer.global_step}: one of its "
                "callbacks, such as BatchSizeFinder, loads another state. Remove it from trainer.callbacks to resume"
            )
        if trainer.ckpt_path:
            copy_moments(trainer.optimizers)
        # 1. settle what lies in the folder
        if trainer.is_global_zero:
            last = self._path("last")
            resumed = resumed_checkpoint(trainer)
            if resumed is not None and Path(resumed).resolve() != last:
                discard_previous(last)  # it precedes a checkpoint that this run has nothing to do with
            folder = run_folder(trainer).resolve()
            if self.overwrite and not goes_on(folder, resumed):
                clear_run_folder(folder)
                if self._manifest is not None:
                    self._manifest.forget_earlier()
            self._score.read_best(self._path("best"), self.state_key)
        # 2. begin the account of what is saved
        self._postponed = Action.CONTINUE  # what was agreed on before a validation, which begins with a save
        self._saved_step = self._seen_step = trainer.global_step
        self._saved_at = time.monotonic()
        parameters = {id(parameter) for parameter in pl_module.parameters()}
        kept = pl_module.state_dict().keys()
        # Forward passes change buffers before the optimiser's step, so their values after the last step are kept.
        self._buffers = [
            buffer for name, buffer in pl_module.named_buffers() if name in kept and id(buffer) not in parameters
        ]
        self._finish_step(trainer)
        if self._manifest is not None:
            send_manifest(trainer, self._manifest)
        # 3. from now on, signals wait for the end of a step
        self._interruption = Interruption(trainer)
        if not validates_now(trainer):  # other options than before ask for no validation here, nor for a step
            self._restore_max_steps(trainer)

    # What a checkpoint records of this callback.

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the step from which the run resumes, as other callbacks may load files of their own later."""
        if self._resumed_step is None:
            self._resumed_step = checkpoint.get("global_step")
            self._validation_due = is_validation_interrupted(checkpoint["loops"]["fit_loop"])

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor and the score of the current weights; the score is None if they were not validated."""
        return self._score.record()

    # A step begins and ends.

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Discard the score of the weights, which are about to change."""
        self._score.current = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Mark the state as unfinished: until the end of the step it is neither the old nor the new one."""
        self._stepping = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimiser step if that is due, and obey signals; all processes call this together.

        Raises:
            SystemExit: the run was interrupted; all is saved.
        """
        if self._interruption is None or trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        self._finish_step(trainer)
        action = self._interruption.agreed(time.monotonic() - self._saved_at >= 60 * self.minutes)
        loop = trainer.fit_loop.epoch_loop
        if validates_now(trainer):
            self._postponed = action  # to where the validation begins, which a resumed run then makes up for
            return
        # Ends of runs and epochs are saved here, not in `on_train_epoch_end`: there Lightning counts an epoch as
        # finished whatever ended it, so that a run that is extended would miss the rest of it.
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps or loop.batch_progress.is_last_batch
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if action != Action.CONTINUE or ends or due:
            self._save_last(trainer)
        self._interruption.follow(action, self._path("last"))

    def _finish_step(self, trainer: Trainer) -> None:
        """Record how far the training has come, for `on_exception`."""
        self._stepping = False
        self._finished = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self._buffer_values: list[Tensor] = [buffer.clone() for buffer in self._buffers]

    # A validation begins and ends.

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save before a validation, which may be long and may fail; a run that resumes from there runs it again.

        Raises:
            SystemExit: the run was interrupted in the step before; all is saved.
        """
        self._restore_max_steps(trainer)
        if self._interruption is not None:
            self._interruption.validating = True
            self._save_last(trainer)
            action, self._postponed = self._postponed, Action.CONTINUE
            self._interruption.follow(action, self._path("last"))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make a run that resumes from this checkpoint repeat the validation that is under way."""
        if self._interruption is not None and self._interruption.validating:
            mark_validation_interrupted(checkpoint["loops"]["fit_loop"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``best.ckpt`` if the score is better than the one that it records.

        Raises:
            DivergedError: a score is not finite.
            MisconfigurationException: nothing is logged under the monitor's name.
        """
        if self._interruption is not None:
            self._score.check(trainer)
            if self._score.improves(trainer):
                trainer.save_checkpoint(self._path("best"), weights_only=False)
                self._score.best = self._score.current
            self._interruption.validating = False

    def _restore_max_steps(self, trainer: Trainer) -> None:
        """Restore the last step of the training, once the validation that a resumed run repeats has begun."""
        trainer.fit_loop.epoch_loop.max_steps -= self._extra_steps
        self._extra_steps = 0

    def _save_last(self, trainer: Trainer) -> None:
        """Write ``last.ckpt``, unless it holds this step already; the previous one is kept until the loss is known."""
        if trainer.global_step == self._saved_step:
            return
        path = self._path("last")
        if trainer.is_global_zero:
            keep_previous(path)
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening to signals; everything has been saved before."""
        self._stop_listening()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the checkpoint before the last one, even if a resumed run was complete and trained nothing."""
        if trainer.is_global_zero and not is_trial(trainer):
            discard_previous(self._path("last"))

    # Interruptions.

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last finished step if its state is intact, or restore the step before if the loss is not finite.

        The exception is raised in any case, even if saving fails.
        """
        if self._interruption is not None:
            self._stop_listening()
            path = self._path("last")
            if isinstance(exception, DivergedError):
                # Weights whose loss is not finite are no place to go on from.
                if trainer.is_global_zero and trainer.global_step == self._saved_step:
                    restore_previous(path)
            elif trainer.is_global_zero and self._can_save(trainer, exception):
                self._save_interrupted(trainer, path)
        self._release(trainer, exception)

    def _stop_listening(self) -> None:
        if self._interruption is not None:
            self._interruption.stop_listening()
            self._interruption = None

    def _can_save(self, trainer: Trainer, exception: BaseException) -> bool:
        """Return whether there is a finished step to save and the current state is that of this step."""
        torn = self._stepping and not isinstance(exception, GradientError)  # which comes before the step
        sharded = isinstance(trainer.strategy, ModelParallelStrategy)  # would need the other processes
        unfit = torn or sharded or isinstance(exception, NonFiniteError)
        return not unfit and trainer.global_step != self._saved_step

    def _save_interrupted(self, trainer: Trainer, path: Path) -> None:
        """Write ``last.ckpt`` as of the last finished step, without the other processes, which may be gone."""
        try:
            for buffer, value in zip(self._buffers, self._buffer_values, strict=True):
                buffer.copy_(value)
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            remove_unfinished_batches(checkpoint["loops"]["fit_loop"], self._finished)
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)
            print(f"Saved step {trainer.global_step} as {path}", file=sys.stderr)
        # Whatever happens here must not hide the exception that ends the run; the checkpoint before is still whole.
        except Exception as error:
            rest = f"{path} is older" if path.exists() else "the run has saved no step before"
            print(f"Step {trainer.global_step} could not be saved ({error}); {rest}", file=sys.stderr)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Unlock the run folder."""
        self._release(trainer, None)

    def _release(self, trainer: Trainer, exception: BaseException | None) -> None:
        """Record how the run ended, after everything has been saved, and unlock the run folder."""
        self._restore_max_steps(trainer)
        self._resumed_step, self._validation_due = None, False
        if self._manifest is not None:
            end_manifest(trainer, self._manifest, exception)
            self._manifest = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def validates_now(trainer: Trainer) -> bool:
    """Return whether a validation follows the batch that was trained on last."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
