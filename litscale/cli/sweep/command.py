"""The command line of ``litscale sweep``, and its loop over the trials."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

try:
    import optuna
except ImportError:
    sys.exit("litscale sweep needs optuna: pip install 'optuna>=5' (or litscale[sweep])")
from optuna.trial import FrozenTrial, TrialState

from litscale.cli.errors import CommandParser
from litscale.cli.parsed import parsed
from litscale.cli.sweep.processes import Ended, LocalRunner, Runner, SubmititRunner, slurm_executor
from litscale.cli.sweep.proposals import direction, needed, propose
from litscale.cli.sweep.spec import SweepError, SweepSpec, read_sweep
from litscale.cli.sweep.table import ERROR, best_of, score_of, write_tables
from litscale.storage.run_folders import LOCK
from litscale.storage.sweep_record import JOURNAL, PRUNED, SETTINGS, UNLOGGED, open_study

JOB = "job"  # attribute of a trial: what its runner finds it by
POLL = 0.5  # seconds between two looks
DESCRIPTION = """Train with different options, which a YAML file describes, and find the best ones.

Each trial is a run folder in FOLDER/trials. The same command resumes an interrupted sweep, and shows the table of a
complete one. docs/sweeps.md explains the settings of the file."""


class SweepRun:
    """Runs the trials of a sweep and records how they end.

    Args:
        spec: the settings of the sweep.
        runner: runs the trials.
        study: the record that was read before the folder was locked, if there was one.
    """

    def __init__(self, spec: SweepSpec, runner: Runner, study: optuna.Study | None) -> None:
        self.spec, self._runner = spec, runner
        self._active: set[int] = set()
        self._interrupted: set[int] = set()  # trials that can go on, but not in this process
        self._stopping: int | None = None
        self.study = self._open(study)

    def _open(self, study: optuna.Study | None) -> optuna.Study:
        """Return the record of the sweep, which is made if there is none.

        Raises:
            SweepError: the folder has a record of other settings.
        """
        spec = self.spec
        study = study or _begun(spec.root)  # another sweep may have begun, and ended, meanwhile
        if study is None:
            (spec.root / JOURNAL).unlink(missing_ok=True)
            open_study(spec.root, direction(spec)).set_user_attr(SETTINGS, spec.settings)
            return open_study(spec.root)
        begun = study.user_attrs[SETTINGS]
        if other := [name for name, value in spec.settings.items() if begun.get(name) != value]:
            raise SweepError(
                f"{spec.path}: the sweep in {spec.root} was started with other settings ({', '.join(other)}): "
                "give another folder, or remove that one"
            )
        return study

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials so far, by number."""
        return self.study.get_trials(deepcopy=False)

    def run(self) -> int | None:
        """Run all trials that have not ended yet.

        Returns:
            The number of the signal that stopped the sweep; None if none did.

        Raises:
            SweepError: trials do not log the metric, so that none of them has a score.
        """
        with self._listening():
            # 1. trials that were running when the sweep was ended
            for trial in self.trials:
                if trial.state == TrialState.RUNNING:
                    self._start(trial)
            # 2. the others, as soon as there is a place and their point is known
            try:
                while True:
                    self._collect()
                    while self._stopping is None and self._next_is_due():
                        self.study.add_trial(propose(self.spec, self.trials))
                        self._start(self.trials[-1])
                    if not self._active or (self._stopping is not None and self._runner.outlives):
                        return self._stopping
                    time.sleep(POLL)
            except BaseException:
                self._runner.interrupt()
                raise

    def _next_is_due(self) -> bool:
        """Return whether another trial is planned, a place is free, and the trials on which its point depends ended."""
        trials = self.trials
        ended = all(trial.state.is_finished() for trial in trials[: needed(self.spec, len(trials))])
        return ended and len(trials) < self.spec.total and len(self._active) < self.spec.jobs

    def _start(self, trial: FrozenTrial) -> None:
        """Start a trial, or follow the job that an earlier process started for it, if that is possible."""
        number = trial.number
        self._active.add(number)
        job = trial.user_attrs.get(JOB)
        if job is not None and self._runner.follow(number, job):
            return
        words = self.spec.words(number, trial.params)
        job = self._runner.start(number, words, self.spec.trial_folder(number), self._environment(number))
        if job is not None:
            self._live(trial).set_user_attr(JOB, job)
        print(f"Trial {number:04d}: {self._said(trial)}", flush=True)

    def _environment(self, number: int) -> dict[str, str]:
        """Return the variables for W&B, which make trials a group and let a resumed trial continue its run."""
        name = re.sub(r"[^\w.-]", "_", self.spec.root.resolve().name)
        begun = f"{self.spec.root.resolve()} {self.trials[0].datetime_start}"
        return {
            "WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", name),
            "WANDB_RUN_ID": f"{name[:40]}-{hashlib.sha256(begun.encode()).hexdigest()[:8]}-{number:04d}",
        }

    def _collect(self) -> None:
        """Record the trials that have ended."""
        for number in sorted(self._active):
            ended = self._runner.ended(number)
            if ended is None:
                continue
            self._active.discard(number)
            if ended.interrupted:
                self._interrupted.add(number)
                print(f"Trial {number:04d}: interrupted", flush=True)
                continue
            self._record(self.trials[number], ended)

    def _record(self, trial: FrozenTrial, ended: Ended) -> None:
        """Record how a trial ended.

        Raises:
            SweepError: the trial ended without a value of the metric.
        """
        if UNLOGGED in trial.user_attrs:
            logged = ", ".join(trial.user_attrs[UNLOGGED])
            raise SweepError(
                f"{self.spec.path}: metric: trials log nothing as {self.spec.metric}; there are {logged}. Correct it, "
                f"and remove {self.spec.root}"
            )
        score = score_of(self.spec, trial)
        if ended.error is None and score is None:
            raise SweepError(
                f"{self.spec.path}: trial {trial.number:04d} ended without a validation, and so without "
                f"{self.spec.metric}: see {self.spec.trial_folder(trial.number)}, and remove {self.spec.root}"
            )
        if ended.error is not None:
            self._live(trial).set_user_attr(ERROR, ended.error)
            self.study.tell(trial.number, state=TrialState.FAIL)
            print(f"Trial {trial.number:04d}: failed: {ended.error}", flush=True)
        elif PRUNED in trial.user_attrs:
            self.study.tell(trial.number, state=TrialState.PRUNED)
            print(f"Trial {trial.number:04d}: pruned at step {trial.user_attrs[PRUNED]}", flush=True)
        else:
            self.study.tell(trial.number, score)
            print(f"Trial {trial.number:04d}: {self.spec.metric} {score:.5g}", flush=True)

    def _live(self, trial: FrozenTrial) -> optuna.trial.Trial:
        return optuna.trial.Trial(self.study, trial._trial_id)

    def _said(self, trial: FrozenTrial) -> str:
        return ", ".join(f"{name} {self.spec.value(name, value)}" for name, value in trial.params.items())

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM make the trials save and end; a second signal reaches them as a second one."""

        def note(number: int, frame: FrameType | None) -> None:
            self._stopping = number
            self._runner.interrupt()

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def show(self) -> None:
        """Write the table and the picture, and print the table and what to do next."""
        spec, trials = self.spec, self.trials
        write_tables(spec, trials).show()
        best = best_of(spec, trials)
        if best is not None:
            config = spec.trial_folder(best.number) / "config.yaml"
            print(f"Next: litscale test --config {config} --ckpt_path best")
        open_ones = spec.total - sum(trial.state.is_finished() for trial in trials)
        if open_ones:
            print(f"{open_ones} of {spec.total} trials are not finished: litscale sweep {spec.path} resumes the sweep")


def _begun(root: Path) -> optuna.Study | None:
    """Return the record of a folder; None if it has none, or its sweep was killed before the settings were written."""
    if not (root / JOURNAL).is_file():
        return None
    try:
        return open_study(root)
    except KeyError:
        return None


def _check_first_trial(spec: SweepSpec) -> None:
    """Parse the options of the first trial of a new sweep.

    Raises:
        SweepError: the options are refused.
    """
    try:
        parsed(spec.words(0, propose(spec, []).params))
    except ValueError as error:
        raise SweepError(f"{spec.path}: the first trial's options are refused: {error}") from error


def main(words: Sequence[str]) -> None:
    """Start or resume a sweep, and show its table.

    Args:
        words: the words after ``litscale sweep``.
    """
    # 1. what to do
    parser = CommandParser("litscale sweep", DESCRIPTION)
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP.yaml", help="file with config, space, metric and search settings"
    )
    given = parser.parse_args(words)
    try:
        spec = read_sweep(given.sweep)
        runner: Runner = LocalRunner(spec.jobs)
        if spec.slurm is not None:
            runner = SubmititRunner(slurm_executor(spec.root / "slurm", spec.slurm))
        if spec.root.exists() and not spec.root.is_dir():
            raise SweepError(f"{spec.path}: folder: {spec.root} is a file: give another folder")
        study = _begun(spec.root)
        if study is None:
            _check_first_trial(spec)  # before there is a folder
        spec.root.mkdir(parents=True, exist_ok=True)
        # 2. trials
        with FileLock(spec.root / LOCK, timeout=0):
            sweep = SweepRun(spec, runner, study)
            stopped = sweep.run()
            sweep.show()
    except Timeout:
        parser.error(f"{spec.root} is in use by another litscale sweep: wait for its end, or stop it")
    except SweepError as error:
        parser.error(str(error))
    if stopped is not None:
        sys.exit(128 + stopped)
