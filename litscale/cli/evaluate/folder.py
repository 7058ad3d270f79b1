"""`EvaluationFolder`: the scores of an evaluation, which has one name and one set of settings."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from callbacks.reporting.json_text import json_text
from litscale.cli.evaluate.selection import Candidate
from litscale.cli.scores import unusual
from litscale.storage.checkpoint_record import file_version
from litscale.storage.checkpoints import checksum, read_checkpoint
from litscale.storage.files import named_errors, read_json, write_atomically
from litscale.storage.run_folders import CHECKPOINTS, EVALUATIONS

RECORD = "evaluated.json"
SETTINGS = "settings.json"
PRESENT = "evaluators"  # in .locks; each evaluator shares it as long as its process runs, which filelock's cannot do


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The scores of a checkpoint.

    Attributes:
        step: number of optimiser steps of its weights.
        checkpoint: path of the file that was evaluated, which may have been removed or replaced since.
        checksum: checksum of the whole content that the file recorded; None if it recorded none.
        weights: a hash of its weights alone.
        time: when it was evaluated, ISO 8601 in UTC.
        scores: name -> number, None if it was not finite.
    """

    step: int
    checkpoint: str
    checksum: str | None
    weights: str
    time: str
    scores: dict[str, float | None]

    @property
    def key(self) -> str:
        """A text that no other scores of the evaluation have."""
        return f"{self.step} {self.time}"


class EvaluationFolder:
    """``evaluations/NAME`` of a run: a folder for each step, and locks by which several evaluators share the work.

    Args:
        run: the run folder.
        name: name of the evaluation.

    Attributes:
        path: the folder.
    """

    def __init__(self, run: Path, name: str) -> None:
        self._run = run
        self.path = run / EVALUATIONS / name
        self._locks = self.path / ".locks"
        self._weights: dict[tuple[int, ...], str] = {}

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Record the settings with which all scores of the folder are made.

        Raises:
            ValueError: the folder holds scores of other settings, or another evaluator uses other settings; the message
                names the differences.
            OSError: the folder cannot be made or written to.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        path = self.path / SETTINGS
        wanted = json.loads(json_text(dict(settings)))
        with self.locked("settings"):
            # Settings of an evaluation that failed before its first score bind nobody: they may be what is wrong.
            if not path.exists() or self._is_unused():
                write_atomically(path, json_text(wanted))
            held = read_json(path)
            if not (differences := list(_differences(held, wanted))):
                self._be_present()
        self._discard_rests()
        if differences:
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise ValueError(
                f"{self.path} belongs to an evaluation with other settings: {'; '.join(differences[:3])}{more}. Give "
                "this one another --name"
            )

    @property
    def unusual(self) -> str:
        """Unusual settings as text for headings; see `litscale.cli.scores.unusual`."""
        return unusual(read_json(self.path / SETTINGS))

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold a named lock in the block, and wait first until no other evaluator holds it."""
        with FileLock(self._locks / what):
            yield

    def lock(self, step: int) -> FileLock | None:
        """Lock a step; return None if another evaluator has locked it. The system unlocks it when a process ends."""
        lock = FileLock(self._locks / f"step_{step}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def step_folder(self, step: int) -> Path:
        """Return the folder to which the evaluation of a step writes."""
        return self.path / f"step_{step}"

    def evaluated(self) -> dict[int, Evaluated]:
        """Return step -> its scores, in ascending order.

        Raises:
            ValueError: a file of scores is damaged.
        """
        found = (self._record(path) for path in self.path.glob(f"step_*/{RECORD}"))
        return {each.step: each for each in sorted(found, key=lambda each: each.step)}

    def is_scored(self, candidate: Candidate) -> bool:
        """Return whether the weights of a checkpoint have scores.

        Raises:
            FileNotFoundError: the checkpoint no longer exists.
            ValueError: the checkpoint or the file of scores is damaged.
        """
        path = self.step_folder(candidate.step) / RECORD
        if not path.exists():
            return False
        record = self._record(path)
        same = candidate.checksum is not None and candidate.checksum == record.checksum
        return same or self.weights_of(candidate.file) == record.weights

    def weights_of(self, path: Path) -> str:
        """Return a hash of the weights, which several files of a step share; raise the same errors as `is_scored`."""
        version = file_version(path)
        if version not in self._weights:
            content = read_checkpoint(path, verified=False)
            with named_errors(path, "damaged, or no checkpoint"):
                self._weights[version] = checksum(content["state_dict"])
        return self._weights[version]

    def take_snapshot(self, candidate: Candidate) -> Path:
        """Keep a checkpoint during its evaluation, even if the training replaces or removes the file.

        Returns:
            A hard link to the file, or a copy of it if the file system has no links.

        Raises:
            FileNotFoundError: the checkpoint no longer exists.
            OSError: there is no space for a copy.
        """
        if candidate.snapshot is not None:
            return candidate.snapshot
        snapshot = self.step_folder(candidate.step) / f".{candidate.path.name}"
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.unlink(missing_ok=True)
        try:
            os.link(candidate.path, snapshot)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(candidate.path, snapshot)
        return snapshot

    def snapshots(self) -> dict[Path, Path]:
        """Return the snapshots of steps without scores, each with the file of which it is a copy.

        An evaluator that is killed leaves its snapshot, which may be all that is left of a checkpoint.
        """
        found = [path for path in self.path.glob("step_*/.*.ckpt") if not (path.parent / RECORD).exists()]
        return {path: self._run / CHECKPOINTS / path.name.removeprefix(".") for path in found}

    def discard_snapshots(self, step: int) -> None:
        """Delete the snapshots of a step, and its folder if it is empty then."""
        folder = self.step_folder(step)
        for snapshot in folder.glob(".*.ckpt"):
            snapshot.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def keep(self, candidate: Candidate, snapshot: Path, scores: Mapping[str, float]) -> None:
        """Write the scores of a step, which then counts as done, and delete its snapshots.

        Args:
            candidate: the checkpoint.
            snapshot: the file that was evaluated.
            scores: name -> number.
        """
        now, path = datetime.now(UTC).isoformat(), str(candidate.path.resolve())
        weights = self.weights_of(snapshot)
        record = Evaluated(
            step=candidate.step,
            checkpoint=path,
            checksum=candidate.checksum,
            weights=weights,
            time=now,
            scores=dict(scores),
        )
        write_atomically(self.step_folder(candidate.step) / RECORD, json_text(asdict(record)))
        self.discard_snapshots(candidate.step)

    def _is_unused(self) -> bool:
        """Return whether no evaluator uses the folder and none has left anything for a step."""
        if any(self.path.glob("step_*")):
            return False
        try:
            with (self._locks / PRESENT).open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another evaluator has it, or the file system has no locks
            return False
        return True

    def _be_present(self) -> None:
        """Show other evaluators that this process uses the folder, until it ends."""
        self._presence = (self._locks / PRESENT).open("ab")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._presence, fcntl.LOCK_SH)

    def _discard_rests(self) -> None:
        """Delete the snapshots of steps with scores, left by evaluators that ended before they deleted them."""
        for snapshot in self.path.glob("step_*/.*.ckpt"):
            step = int(snapshot.parent.name.removeprefix("step_"))
            if (snapshot.parent / RECORD).exists() and (lock := self.lock(step)) is not None:
                self.discard_snapshots(step)
                lock.release()

    def _record(self, path: Path) -> Evaluated:
        with named_errors(path, "damaged; delete it to have the step evaluated again"):
            return Evaluated(**read_json(path))


def _differences(held: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Yield the options that differ, as ``model.nll_passes was 4 and is 1``."""
    if isinstance(held, list) and isinstance(wanted, list):
        held, wanted = dict(enumerate(held)), dict(enumerate(wanted))
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*held, *wanted]):
            yield from _differences(held.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
    elif json.dumps(held) != json.dumps(wanted):  # 1 batch is not 1.0, all of them
        yield f"{name} was {_short(held)} and is {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
