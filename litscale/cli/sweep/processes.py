"""Trials as processes: here, or each as a job of SLURM."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from litscale.cli.parsed import COMMAND
from litscale.cli.sweep.spec import SweepError
from litscale.storage.run_folders import LOCK
from litscale.storage.secrets import mask_text

LOG = "log.txt"  # in the folder of a trial: what its process printed
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
SECONDS_TO_SAVE = 60.0
MOST_ERROR = 500  # characters
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Ended:
    """How a process of a trial ended.

    Attributes:
        interrupted: whether it was told to end, so that the trial can be resumed later.
        error: the last line that it printed, if it failed.
    """

    interrupted: bool = False
    error: str | None = None


class Runner(ABC):
    """Runs trials.

    Attributes:
        outlives: whether trials continue after the sweep's command has ended.
    """

    outlives: bool

    @abstractmethod
    def start(self, number: int, words: Sequence[str], folder: Path, environment: dict[str, str]) -> str | None:
        """Start or resume a trial.

        Args:
            number: number of the trial.
            words: the words after ``litscale``.
            folder: folder of the trial.
            environment: variables beside those of this process.

        Returns:
            A name by which `follow` finds the trial, even after this process has ended; None if it cannot.
        """

    @abstractmethod
    def follow(self, number: int, job: str) -> bool:
        """Follow a trial that an earlier process started; return whether that is possible."""

    @abstractmethod
    def ended(self, number: int) -> Ended | None:
        """Return how a trial ended, or None while it runs."""

    @abstractmethod
    def interrupt(self) -> None:
        """Make all trials save and end, unless they outlive the sweep's command."""


class LocalRunner(Runner):
    """Runs trials as processes of this machine; if several run at a time, each gets its share of the GPUs.

    Args:
        jobs: number of trials that run at a time.
    """

    outlives = False

    def __init__(self, jobs: int) -> None:
        self._running: dict[int, tuple[int, FitProcess]] = {}  # trial -> slot and process
        self._jobs = jobs

    def start(self, number: int, words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        """Start a process, with the GPUs of a free slot."""
        slot = min(set(range(self._jobs)) - {slot for slot, _ in self._running.values()})
        devices = visible_devices()
        if self._jobs > 1 and len(devices) >= self._jobs:
            environment = environment | {"CUDA_VISIBLE_DEVICES": ",".join(devices[slot :: self._jobs])}
        process = FitProcess([*COMMAND, *words], folder, environment)
        self._running[number] = slot, process

    def follow(self, number: int, job: str) -> bool:
        """Return False, as no process outlives the sweep."""
        return False

    def ended(self, number: int) -> Ended | None:
        """Return how a process ended, or None while it runs."""
        _, process = self._running[number]
        ended = process.ended()
        if ended is not None:
            del self._running[number]
        return ended

    def interrupt(self) -> None:
        """Send SIGTERM to all processes."""
        for _, process in self._running.values():
            process.interrupt()


@dataclass
class FitProcess:
    """A process that trains in a folder, as soon as no other one does.

    On Linux it gets SIGTERM if this process is killed; elsewhere it trains to its end. Ctrl-C in a terminal does not
    reach it directly.

    Args:
        command: the words of its command.
        folder: its output goes to ``log.txt`` there.
        environment: variables beside those of this process.
    """

    command: list[str]
    folder: Path
    environment: dict[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _interrupted: bool = field(default=False, init=False)

    def ended(self) -> Ended | None:
        """Return how the process ended, or None while it runs or waits; a waiting one starts if the folder is free."""
        if self._process is None:
            if self._interrupted:
                return Ended(interrupted=True)
            self._start_if_free()
            return None
        status = self._process.poll()
        if status is None:
            return None
        if status in INTERRUPTED:
            return Ended(interrupted=True)
        return Ended(error=f"{last_line(self.folder / LOG)} (exit status {status})" if status else None)

    def _start_if_free(self) -> None:
        """Start the process, unless one that an earlier sweep started is still saving its last step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                pass
        except Timeout:
            return
        with (self.folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        if self._interrupted:  # while it was started
            self._process.terminate()

    def interrupt(self) -> None:
        """Send SIGTERM, at which a training saves its step and ends."""
        self._interrupted = True
        if self._process is not None:
            self._process.terminate()


def _end_with_parent() -> None:
    """Let this new process get SIGTERM when its parent is killed, if the system can do that."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # of submitit, for the process that started this one


@dataclass
class TrialJob:
    """A trial as a job of SLURM; submitit calls it, and requeues it when its time is up or it is preempted."""

    command: list[str]
    folder: Path
    environment: dict[str, str]
    _process: FitProcess | None = field(default=None, init=False)

    def __call__(self) -> Ended:
        """Train, and return how the training ended."""
        self._process = FitProcess(self.command, self.folder, self.environment)
        while (ended := self._process.ended()) is None:
            time.sleep(0.2)
        return ended

    def checkpoint(self) -> Any:
        """Make the training save and end, and return what submitit submits to restart the job."""
        from submitit.helpers import DelayedSubmission

        assert self._process is not None
        self._process.interrupt()
        deadline = time.monotonic() + SECONDS_TO_SAVE
        while self._process.ended() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return DelayedSubmission(TrialJob(self.command, self.folder, self.environment))


class SubmititRunner(Runner):
    """Runs trials as jobs of SLURM, which continue after the sweep's command has ended; the next one follows them.

    Args:
        executor: the executor of submitit.
    """

    outlives = True

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._jobs: dict[int, Any] = {}

    def start(self, number: int, words: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
        """Submit a job and return its SLURM number."""
        self._jobs[number] = self._executor.submit(TrialJob([*COMMAND, *words], folder.resolve(), environment))
        return self._jobs[number].job_id

    def follow(self, number: int, job: str) -> bool:
        """Follow a job by its number; return False if it is known to have ended without a result."""
        self._jobs[number] = self._executor.job_class(self._executor.folder, job)
        if (ended := self._of(self._jobs[number])) is not None and ended.interrupted:
            del self._jobs[number]
            return False
        return True

    def ended(self, number: int) -> Ended | None:
        """Return how a job ended, or None while it runs."""
        return self._of(self._jobs[number])

    def _of(self, job: Any) -> Ended | None:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if not job.done():
            return None
        try:
            return job.results()[0]
        except FailedJobError as error:
            return Ended(error=mask_text(str(error).strip().splitlines()[-1].strip())[:MOST_ERROR])
        except UncompletedJobError:  # cancelled, or its machine is gone
            return Ended(interrupted=True)

    def interrupt(self) -> None:
        """Do nothing, as jobs continue without the sweep's command."""


def slurm_executor(folder: Path, options: dict[str, Any]) -> Any:
    """Return an executor of submitit.

    Args:
        folder: the folder for the files of jobs.
        options: options of ``SlurmExecutor``, such as ``partition``, ``time`` (minutes), ``gpus_per_node``.

    Raises:
        SweepError: submitit or SLURM is missing, or submitit does not know an option.
    """
    try:
        import submitit
    except ImportError as error:
        raise SweepError("slurm: needs submitit: pip install 'submitit>=1.5'") from error
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**options)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        text = " ".join(str(error).split())  # submitit lists its options on lines of their own
        raise SweepError(f"slurm: {text}") from error
    return executor


def visible_devices() -> list[str]:
    """Return the GPUs that trials may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def last_line(log: Path) -> str:
    """Return the last informative line of a log, without secrets and without W&B's lines about its files."""
    text = _COLORS.sub("", log.read_text(errors="replace")) if log.is_file() else ""
    lines = [line for each in text.splitlines() if (line := each.strip()) and not line.startswith("wandb:")]
    return mask_text(lines[-1])[:MOST_ERROR] if lines else "nothing was printed"
