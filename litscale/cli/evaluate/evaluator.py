"""`Evaluator`: takes one checkpoint after the other, shares them with other evaluators, and keeps what they score."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import BaseFileLock

from litscale.cli.evaluate.dashboards import dashboards, send_scores
from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.evaluate.selection import Candidate, CheckpointReader, Selection
from litscale.cli.evaluate.table import write_tables
from litscale.storage.manifest import FAILED, FINISHED, read_manifest

SECONDS_BETWEEN_SENDS = 60.0


@dataclass(frozen=True)
class Task:
    """A checkpoint to evaluate.

    Attributes:
        step: number of optimiser steps of the checkpoint.
        checkpoint: path of the checkpoint in the run.
        snapshot: the file to read.
        folder: the folder to which the evaluation writes.
    """

    step: int
    checkpoint: Path
    snapshot: Path
    folder: Path


@dataclass(frozen=True)
class Wait:
    """There is nothing to do for some seconds."""

    seconds: float


@dataclass(frozen=True)
class End:
    """There is nothing left to do.

    Attributes:
        reason: why, as a line for the user.
    """

    reason: str


@dataclass(frozen=True)
class Watch:
    """Whether and how an evaluator waits for new checkpoints.

    Attributes:
        on: whether it waits.
        patience: minutes without a running training and without a new checkpoint, after which it ends.
        poll: seconds between two checks of the run.
    """

    on: bool = False
    patience: float = 60.0
    poll: float = 10.0


class Evaluator:
    """Chooses the checkpoints to evaluate and keeps their scores, in the first process of an evaluation.

    Args:
        run: the run folder.
        folder: folder of the evaluation.
        selection: the checkpoints that are to be evaluated.
        watch: whether and how to wait for new checkpoints.
        loggers: loggers of the training, as its config gives them.
        modes: score -> ``min`` or ``max``, beside `litscale.cli.evaluate.table.MODES`.
    """

    def __init__(
        self,
        run: Path,
        folder: EvaluationFolder,
        selection: Selection,
        watch: Watch,
        *,
        loggers: Sequence[Mapping[str, object]] = (),
        modes: Mapping[str, str] | None = None,
    ) -> None:
        self._run, self._folder, self._selection, self._watch = run, folder, selection, watch
        self._loggers, self._modes = loggers, modes or {}
        self._reader = CheckpointReader()
        self._lock: BaseFileLock | None = None
        self._task: tuple[Candidate, Path] | None = None  # and its snapshot
        self._seen: set[Candidate] = set()
        self._news_at = time.monotonic()
        self._sent_at = -SECONDS_BETWEEN_SENDS
        self._told: set[str] = set()

    def next(self) -> Task | Wait | End:
        """Return what to do now; the step of a task is locked until `keep`, `give_up` or `release`.

        Raises:
            FileNotFoundError: there is no selected checkpoint, and there never was one.
            ValueError: a file of scores is damaged.
        """
        # 1. the state of the run first: what it writes later is seen by the next look, if it goes on
        over, at_work = self._state()
        candidates = self._reader.candidates(self._selection.paths(self._run))
        for snapshot, path in self._folder.snapshots().items():
            if self._selection.wants(path.name) and (kept := self._reader.read(snapshot)) is not None:
                candidates.append(replace(kept, path=path, snapshot=snapshot))
        if at_work or not self._seen.issuperset(candidates):
            self._news_at = time.monotonic()
        self._seen.update(candidates)
        if not self._watch.on and self._nothing():
            raise FileNotFoundError(self._selection.nothing(self._run))
        # 2. a checkpoint that nobody has scored or is at
        busy, replaced = [], False
        for candidate in self._selection.due(candidates, self._folder.evaluated()):
            try:
                task = self._claim(candidate)
            except FileNotFoundError:
                print(f"{candidate.path} (step {candidate.step}) was removed meanwhile: skipped")
                continue
            if isinstance(task, Task):
                return task
            busy += [candidate.step] if task == "busy" else []
            replaced |= task == "replaced"
        if replaced:
            return Wait(0.0)  # and look again
        # 3. or else an end
        impatient = time.monotonic() - self._news_at >= 60 * self._watch.patience
        ends = not self._watch.on or over or impatient
        self._publish(last=ends)
        return End(self._farewell(busy, impatient and not over)) if ends else Wait(self._watch.poll)

    def _claim(self, candidate: Candidate) -> Task | str:
        """Lock a checkpoint's step and return the task, or return why not: ``scored``, ``busy`` or ``replaced``."""
        if self._folder.is_scored(candidate):
            return "scored"
        lock = self._folder.lock(candidate.step)
        if lock is None:
            return "busy"
        try:
            if self._folder.is_scored(candidate):  # by the evaluator that had the lock
                return "scored"
            snapshot = self._folder.take_snapshot(candidate)
            kept = self._reader.read(snapshot)
            if kept is None or (kept.step, kept.checksum) != (candidate.step, candidate.checksum):
                self._folder.discard_snapshots(candidate.step)
                return "replaced"
            self._lock, self._task, lock = lock, (candidate, snapshot), None
        finally:
            if lock is not None:
                lock.release()
        return Task(candidate.step, candidate.path, snapshot, snapshot.parent)

    def keep(self, scores: Mapping[str, float]) -> None:
        """Write the scores of the current task, and update the tables and dashboards."""
        assert self._task is not None
        self._folder.keep(*self._task, scores)
        self._news_at = time.monotonic()
        self.release()
        with self._folder.locked("tables"):
            write_tables(self._folder.path, self._folder.evaluated(), self._modes, self._folder.unusual)
        self._publish()

    def give_up(self) -> None:
        """Delete the snapshot of the current task, which cannot be evaluated, and release its step."""
        if self._task is not None:
            self._folder.discard_snapshots(self._task[0].step)
        self.release()

    def release(self) -> None:
        """Unlock the step of the current task, if there is one, for other evaluators."""
        if self._lock is not None:
            self._lock.release()
        self._lock = self._task = None

    def _publish(self, last: bool = False) -> None:
        """Send new scores to the dashboards of the training, at most once a minute, and at the end."""
        if not last and time.monotonic() - self._sent_at < SECONDS_BETWEEN_SENDS:
            return
        self._sent_at = time.monotonic()
        if evaluated := self._folder.evaluated():
            targets = dashboards(self._run, self._loggers)
            with self._folder.locked("dashboards"):
                lines = send_scores(self._folder.path, evaluated, targets, self._state()[1])
            for line in lines:
                self._tell(line)

    def _state(self) -> tuple[bool, bool]:
        """Return whether the run is over and whether it is running; both are false for a run that may be resumed."""
        try:
            manifest = read_manifest(self._run)
        except FileNotFoundError:
            return False, False
        return manifest.status in (FINISHED, FAILED), not manifest.ended

    def _farewell(self, busy: Sequence[int], impatient: bool) -> str:
        """Return why the evaluator ends, as a line for the user.

        Raises:
            FileNotFoundError: it has seen no selected checkpoint, and none has scores.
        """
        if self._nothing():
            raise FileNotFoundError(self._selection.nothing(self._run))
        count = len(self._folder.evaluated())
        reason = f"{count} {'step is' if count == 1 else 'steps are'} scored in {self._folder.path}"
        if busy:
            reason += f"; others are at {', '.join(map(str, busy))}"
        if impatient:
            reason += f"; nothing new for {self._watch.patience:g} minutes (--patience)"
        return reason

    def _nothing(self) -> bool:
        """Return whether no selected checkpoint ever existed; one that was deleted may have left scores."""
        scored = (Path(record.checkpoint).name for record in self._folder.evaluated().values())
        return not self._seen and not any(map(self._selection.wants, scored))

    def _tell(self, line: str) -> None:
        """Print a line, unless it was printed before."""
        if line not in self._told:
            self._told.add(line)
            print(line)
