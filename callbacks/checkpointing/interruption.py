"""Interruptions of a training: signals wait for the end of a step, where all processes act on them together."""

from __future__ import annotations

import signal
import sys
import threading
import time
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

SECONDS_BETWEEN_AGREEMENTS = 2.0  # of several processes
MAX_STEPS_BETWEEN_AGREEMENTS = 1000


class Action(IntEnum):
    """An action after a step; all processes of a run take the largest one that any of them requests."""

    CONTINUE = 0
    SAVE = 1
    REQUEUE = 2
    INTERRUPT = 3
    TERMINATE = 4


EXIT_STATUS = {Action.INTERRUPT: 128 + signal.SIGINT, Action.TERMINATE: 128 + signal.SIGTERM}
NAMES = {Action.INTERRUPT: "Ctrl-C", Action.TERMINATE: "SIGTERM"}


class Interruption:
    """Notes Ctrl-C, SIGTERM and the signal that requeues a job, from its construction until `stop_listening`.

    A signal is only noted, and acted on where `agreed` and `follow` are called. During a validation, and at the second
    signal, the process ends at once.

    Args:
        trainer: trainer of the run; its processes construct this together.

    Attributes:
        validating: whether a validation is under way. It begins with a save, so a signal waits for no step.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.validating = False
        self._trainer = trainer
        self._requested = Action.CONTINUE
        self._agreed_at = time.monotonic()
        self._agree_in, self._steps = 1, 0
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            self._listen()

    def _listen(self) -> None:
        environment = self._slurm()
        actions: dict[int, Action] = {signal.SIGINT: Action.INTERRUPT, signal.SIGTERM: Action.TERMINATE}
        requeue = environment.requeue_signal if environment is not None else None
        actions[signal.SIGUSR1 if requeue is None else requeue] = Action.REQUEUE

        def note(number: int, frame: FrameType | None) -> None:
            action = actions[number]
            if action in EXIT_STATUS and (self.validating or self._requested >= Action.INTERRUPT):
                if self._trainer.strategy.launcher is not None:
                    self._trainer.strategy.launcher.kill(number)
                sys.exit(EXIT_STATUS[action])
            self._requested = max(self._requested, action)

        for number in actions:
            self._handlers[number] = signal.signal(number, note)

    def stop_listening(self) -> None:
        """Restore the handlers that the signals had before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def agreed(self, save_due: bool) -> Action:
        """Return the action that all processes take now. All of them must call this once after each step.

        Several processes communicate only about every two seconds, at the same steps, and take no action in between.

        Args:
            save_due: whether this process requests a save.
        """
        if save_due:
            self._requested = max(self._requested, Action.SAVE)
        if self._trainer.world_size == 1:
            action, self._requested = self._requested, Action.CONTINUE
            return action
        self._steps += 1
        if self._steps < self._agree_in:
            return Action.CONTINUE
        # The same collective takes the largest action, and the largest number of steps until the next agreement.
        now = time.monotonic()
        steps = int(SECONDS_BETWEEN_AGREEMENTS * self._steps / max(now - self._agreed_at, 1e-6))
        steps = min(max(steps, 1), MAX_STEPS_BETWEEN_AGREEMENTS)
        own = torch.tensor([self._requested, steps], device=self._trainer.strategy.root_device)
        largest, self._agree_in = (int(v) for v in self._trainer.strategy.reduce(own, reduce_op="max").tolist())
        self._requested, self._steps, self._agreed_at = Action.CONTINUE, 0, now
        return Action(largest)

    def follow(self, action: Action, saved: Path) -> None:
        """Requeue the job or end the process, if that is the action.

        Args:
            action: the result of `agreed`.
            saved: the checkpoint of this step, which has been written.

        Raises:
            SystemExit: the process ends, with the status that belongs to the signal.
        """
        if action == Action.REQUEUE:
            environment = self._slurm()
            if environment is not None and environment.auto_requeue:
                # What Lightning does at the signal, at a moment when the state is whole.
                self._trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None)  # type: ignore[arg-type]
        if action in EXIT_STATUS:
            rank_zero_info(f"{NAMES[action]}: saved step {self._trainer.global_step} as {saved}")
            sys.exit(EXIT_STATUS[action])

    def _slurm(self) -> SLURMEnvironment | None:
        """Return the SLURM job in which the run takes place; None outside SLURM."""
        environment = self._trainer._accelerator_connector.cluster_environment
        return environment if isinstance(environment, SLURMEnvironment) else None
