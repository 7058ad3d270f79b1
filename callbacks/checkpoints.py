"""When a run is saved, as what, and when it is not."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from callbacks.checkpoint_io import NonFiniteError, use_checkpoint_files
from callbacks.reporting.loggers import run_folder
from lit_models.base import REMEDY, DivergedError, GradientError
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.run_folders import (
    checkpoint_in,
    clear_run_folder,
    goes_on,
    lock_run_folder,
    refuse_used_folder,
)

# What the processes of a run agree on after a step: the largest of their wishes wins.
GO_ON, SAVE, REQUEUE, INTERRUPT, TERMINATE = range(5)
EXIT_STATUS = {INTERRUPT: 128 + signal.SIGINT, TERMINATE: 128 + signal.SIGTERM}
PACE = 2.0  # seconds between two agreements of several processes
MOST_STEPS = 1000  # steps between them at most
EARLIER = ".last.earlier.ckpt"


class Checkpoints(Checkpoint):
    """Saves a run, so that nothing is lost when it breaks, and no file is worse than the one that it replaces.

    In ``checkpoints`` of the run folder there are

    - ``last.ckpt``, the newest finished optimiser step. It is written every ``minutes``, at the end of each epoch and
      of the training, before each validation (which a run that goes on from there runs again), and where a run is
      interrupted: by Ctrl-C, SIGTERM and SIGUSR1
      after the step that is under way (in a validation at once, and a second signal never waits), and by an exception
      as of the step before.
    - ``best.ckpt``, the weights with the best ``monitor`` so far. Nothing else writes it.

    Weights, moving averages and moments that are not finite are never saved, nor are weights whose loss or score is not
    finite. Files appear whole or not at all (`callbacks.checkpoint_io.CheckpointFiles`).

    One run at a time owns a folder. A run that does not go on from a checkpoint of the folder is refused where another
    run's checkpoints lie, unless ``overwrite`` is set; then those and the results of that run are removed when the
    training starts.

    After Ctrl-C the process ends with status 130, after SIGTERM with 143. SIGUSR1 saves, and the run goes on; in a job
    of SLURM it also requeues the job, as Lightning does.
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
            every_n_steps: save ``last.ckpt`` also after each so many optimiser steps.
            overwrite: replace the run whose checkpoints lie in the run folder.

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
        self.monitor, self.mode = monitor, mode
        self.minutes, self.every_n_steps = minutes, every_n_steps
        self.overwrite = overwrite
        self.best_score: float | None = None
        self._lock: Any = None
        self._folder: Path | None = None  # of the fit that this object has begun
        self._resumed_step: int | None = None
        self._running = False

    @property
    def best_model_path(self) -> str:
        """Path of ``best.ckpt``, or nothing; Lightning asks for it."""
        best = None if self._folder is None else checkpoint_in(self._folder, "best")
        return str(best) if best is not None and best.exists() else ""

    # A fit begins and ends.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the run folder, on rank zero.

        Raises:
            RunFolderError: another run is at work there.
            OSError: the folder cannot be made.
        """
        use_checkpoint_files(trainer)
        if stage == "fit" and not trainer.fast_dev_run and trainer.is_global_zero and self._lock is None:
            self._lock = lock_run_folder(run_folder(trainer).resolve())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that no other run's checkpoints lie in the folder; which checkpoint is resumed is known only now.

        Raises:
            RunFolderError: they do.
        """
        folder = run_folder(trainer).resolve()
        if not (trainer.fast_dev_run or self.overwrite or self._folder == folder):
            refuse_used_folder(folder, trainer.ckpt_path)
        self._folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear a folder that is overwritten, take over the best score so far, and listen to signals."""
        if trainer.fast_dev_run:
            return
        if trainer.ckpt_path and trainer.global_step != self._resumed_step:
            raise MisconfigurationException(
                f"the run resumes step {self._resumed_step}, but begins at step {trainer.global_step}: one of its "
                "callbacks, as BatchSizeFinder, loads another state. Leave it out of trainer.callbacks to resume"
            )
        if trainer.is_global_zero:
            last = checkpoint_in(self._folder, "last")
            if trainer.ckpt_path and Path(trainer.ckpt_path).resolve() != last:
                self._forget_earlier()  # it is earlier than a checkpoint that this run has nothing to do with
            if self.overwrite and not goes_on(self._folder, trainer.ckpt_path):
                clear_run_folder(self._folder)
            self.best_score = self._recorded_score(checkpoint_in(self._folder, "best"))
        self._running = True
        self._wish = self._agreed_wish = GO_ON
        self._saved_step = self._seen_step = trainer.global_step
        self._saved_at = self._agreed_at = time.monotonic()
        self._agree_in, self._steps = 1, 0
        self._validating = self._stepping = False
        parameters = {id(parameter) for parameter in pl_module.parameters()}
        kept = pl_module.state_dict().keys()
        self._buffers = {
            name: buffer for name, buffer in pl_module.named_buffers() if name in kept and id(buffer) not in parameters
        }
        self._finish_step(trainer)
        self._listen(trainer)

    def _recorded_score(self, path: Path) -> float | None:
        """The score that a ``best.ckpt`` says of itself, if it is one of the same monitor."""
        if self.monitor is None or not path.exists():
            return None
        try:
            state = read_checkpoint(path, "the best checkpoint so far,")["callbacks"][self.state_key]
        except (ValueError, KeyError) as error:
            rank_zero_warn(f"{path} gives no score ({error}), so the next validation replaces it")
            return None
        return state["score"] if state["monitor"] == self.monitor and state["mode"] == self.mode else None

    # What the file says of itself.

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note where the run goes on; other callbacks may load files of their own later."""
        if self._resumed_step is None:
            self._resumed_step = checkpoint.get("global_step")

    def state_dict(self) -> dict[str, Any]:
        """The monitor and the score of the weights at hand; null where they were not validated."""
        return {"monitor": self.monitor, "mode": self.mode, "score": self._score}

    _score: float | None = None

    # A step begins and ends.

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The weights at hand are about to change, so no score is theirs."""
        self._score = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """From here to the end of the step the state is neither the old nor the new one."""
        self._stepping = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimiser step: save where it is time, and follow signals; all processes together.

        Raises:
            SystemExit: the run was interrupted; all is saved.
        """
        if not self._running or trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        self._finish_step(trainer)
        wish = self._agreed(trainer)
        loop = trainer.fit_loop.epoch_loop
        if loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            self._agreed_wish = wish  # followed where the validation begins, which a resumed run then makes up for
            return
        # Ends of runs and epochs are saved here, not in `on_train_epoch_end`: there Lightning counts an epoch as
        # finished whatever ended it, so that a run that is extended would miss the rest of it.
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps or loop.batch_progress.is_last_batch
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if wish != GO_ON or ends or due:
            self._save_last(trainer)
        self._follow(trainer, wish)

    def _follow(self, trainer: Trainer, wish: int) -> None:
        """Requeue or end, where that is agreed; all is saved."""
        if wish == REQUEUE:
            self._requeue(trainer)
        if wish in EXIT_STATUS:
            name = {INTERRUPT: "Ctrl-C", TERMINATE: "SIGTERM"}[wish]
            rank_zero_info(f"{name}: saved step {trainer.global_step} as {checkpoint_in(self._folder, 'last')}")
            sys.exit(EXIT_STATUS[wish])

    def _finish_step(self, trainer: Trainer) -> None:
        """Note how far the training has come, for `on_exception`."""
        self._stepping = False
        self._finished = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self._values = [buffer.clone() for buffer in self._buffers.values()]

    def _agreed(self, trainer: Trainer) -> int:
        """What all processes do now; several of them ask each other every few seconds only, at the same steps."""
        now = time.monotonic()
        if now - self._saved_at >= 60 * self.minutes:
            self._wish = max(self._wish, SAVE)
        if trainer.world_size == 1:
            wish, self._wish = self._wish, GO_ON
            return wish
        self._steps += 1
        if self._steps < self._agree_in:
            return GO_ON
        pace = int(PACE * self._steps / max(now - self._agreed_at, 1e-6))
        asked = torch.tensor([self._wish, min(max(pace, 1), MOST_STEPS)], device=trainer.strategy.root_device)
        wish, self._agree_in = (int(value) for value in trainer.strategy.reduce(asked, reduce_op="max").tolist())
        self._wish, self._steps, self._agreed_at = GO_ON, 0, now
        return wish

    # A validation begins and ends.

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save before a validation, which may be long and may fail; whoever resumes from there runs it again.

        Raises:
            SystemExit: the run was interrupted in the step before; all is saved.
        """
        if self._running:
            self._validating = True
            self._save_last(trainer)
            wish, self._agreed_wish = self._agreed_wish, GO_ON
            self._follow(trainer, wish)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have Lightning finish a validation that had begun, when the run goes on from here."""
        if self._running and self._validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            # This is what Lightning takes for an interrupted validation: a batch that began and did not end.
            progress["total"].update({"ready": 1, "started": 1, "processed": 0, "completed": 0})
            progress["current"].update(dict.fromkeys(progress["current"], 0))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best weights.

        Raises:
            DivergedError: a score is not finite.
        """
        if self._running:
            self._check_scores(trainer)
            self._save_best(trainer)
            self._validating = False

    def _check_scores(self, trainer: Trainer) -> None:
        """Refuse scores that are not finite: that of the monitor, or without one all that are called val..."""
        scores = trainer.callback_metrics
        judged = [name for name in scores if name == self.monitor or (self.monitor is None and name.startswith("val"))]
        for name in judged:
            if not torch.isfinite(scores[name]):
                raise DivergedError(
                    f"{name} is {float(scores[name])} at step {trainer.global_step}, so the weights are not saved: "
                    f"{REMEDY}"
                )

    def _save_best(self, trainer: Trainer) -> None:
        """Write ``best.ckpt`` if the score is better than the one that it records.

        Raises:
            MisconfigurationException: nothing of the monitor's name is logged.
        """
        if self.monitor is None:
            return
        scores = trainer.callback_metrics
        if self.monitor not in scores:
            raise MisconfigurationException(
                f"checkpoints.monitor: nothing is logged as {self.monitor}; there are {', '.join(sorted(scores))}"
            )
        score = float(scores[self.monitor])
        self._score = score
        sign = 1 if self.mode == "min" else -1
        better = self.best_score is None or sign * score < sign * self.best_score
        if trainer.strategy.broadcast(better):
            trainer.save_checkpoint(checkpoint_in(self._folder, "best"), weights_only=False)
            self.best_score = score

    def _save_last(self, trainer: Trainer) -> None:
        """Write ``last.ckpt``, unless it holds this step already; the one before stays aside."""
        if trainer.global_step == self._saved_step:
            return
        path = checkpoint_in(self._folder, "last")
        if trainer.is_global_zero:
            self._keep_earlier(path)
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    # The loss of new weights is known one step late. Until then the checkpoint before them is kept as well.

    def _keep_earlier(self, path: Path) -> None:
        if path.exists():
            self._forget_earlier()
            # A file system without hard links has no earlier checkpoint, and the run goes on without it.
            with suppress(OSError):
                os.link(path, path.with_name(EARLIER))

    def _forget_earlier(self) -> None:
        checkpoint_in(self._folder, "last").with_name(EARLIER).unlink(missing_ok=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening to signals; what there is to save is saved."""
        if self._running:
            self._stop_listening()
            if trainer.is_global_zero:
                self._forget_earlier()

    # Interruptions.

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last finished step, if the state at hand is that of a step; never in place of the exception."""
        if self._running:
            self._stop_listening()
            path = checkpoint_in(self._folder, "last")
            if isinstance(exception, DivergedError):
                earlier = path.with_name(EARLIER)
                # Weights whose loss is not finite are no place to go on from.
                if trainer.is_global_zero and trainer.global_step == self._saved_step and earlier.exists():
                    earlier.replace(path)
            elif trainer.is_global_zero and self._can_save(trainer, exception):
                self._save_interrupted(trainer, path)
        self._release()

    def _can_save(self, trainer: Trainer, exception: BaseException) -> bool:
        """Whether there is a finished step to save, and the state at hand is that step's."""
        torn = self._stepping and not isinstance(exception, GradientError)  # which comes before the step
        sharded = isinstance(trainer.strategy, ModelParallelStrategy)  # would need the other processes
        unfit = torn or sharded or isinstance(exception, NonFiniteError)
        return not unfit and trainer.global_step != self._saved_step

    def _save_interrupted(self, trainer: Trainer, path: Path) -> None:
        """Write ``last.ckpt`` as of the last finished step, without the other processes, which may be gone."""
        try:
            for buffer, value in zip(self._buffers.values(), self._values, strict=True):
                buffer.copy_(value)
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            _forget_unfinished(checkpoint["loops"]["fit_loop"], self._finished)
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)
            print(f"Saved step {trainer.global_step} as {path}", file=sys.stderr)
        # Whatever happens here must not hide the exception that ends the run; the checkpoint before is still whole.
        except Exception as error:
            print(f"Step {trainer.global_step} could not be saved ({error}); {path} is older", file=sys.stderr)

    def _listen(self, trainer: Trainer) -> None:
        """From now on, signals wait for the end of the step."""
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may
        environment = trainer._accelerator_connector.cluster_environment
        requeue = getattr(signal, "SIGUSR1", None)
        if isinstance(environment, SLURMEnvironment) and environment.requeue_signal is not None:
            requeue = environment.requeue_signal
        wishes = {signal.SIGINT: INTERRUPT, signal.SIGTERM: TERMINATE}
        if requeue is not None:
            wishes[requeue] = REQUEUE

        def note(number: int, frame: FrameType | None) -> None:
            wish = wishes[signal.Signals(number)]
            # A validation comes after a save, and there is no step to wait for.
            if wish in EXIT_STATUS and (self._validating or self._wish >= INTERRUPT):
                if trainer.strategy.launcher is not None:
                    trainer.strategy.launcher.kill(number)
                sys.exit(EXIT_STATUS[wish])
            self._wish = max(self._wish, wish)

        for number in wishes:
            self._handlers[number] = signal.signal(number, note)

    def _stop_listening(self) -> None:
        self._running = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _requeue(self, trainer: Trainer) -> None:
        """In a job of SLURM, do what Lightning does at the signal, at a moment when the state is whole."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the folder back."""
        self._release()

    def _release(self) -> None:
        self._resumed_step = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _forget_unfinished(fit_loop: dict[str, Any], finished: int) -> None:
    """Take the batches after the last optimiser step out of a checkpoint's account of the training.

    Args:
        fit_loop: its ``loops.fit_loop``; changed in place.
        finished: batches that were trained on over all epochs, up to that step.

    Raises:
        ValueError: a data loader keeps its place in a form that cannot be set back.
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    batches = progress["total"]["ready"] - finished
    if batches <= 0:
        return
    for count in (progress["total"], progress["current"]):
        count.update(dict.fromkeys(("ready", "started", "processed", "completed"), count["ready"] - batches))
    progress["is_last_batch"] = False
    for place in fit_loop["state_dict"].get("combined_loader", ()):
        if "batches" not in place:
            raise ValueError("the data loader was a batch ahead")
        place["batches"] -= batches
