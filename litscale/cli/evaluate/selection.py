"""Which checkpoints of a run are evaluated."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from litscale.storage.checkpoint_record import file_version
from litscale.storage.checkpoints import STAMP, read_checkpoint
from litscale.storage.run_folders import CHECKPOINTS


@dataclass(frozen=True)
class Candidate:
    """A checkpoint of a run.

    Attributes:
        path: its file in the run, which a training may replace or remove at any time.
        step: number of optimiser steps of its weights.
        checksum: checksum of the whole content that the file records; None if it records none.
        snapshot: the snapshot that an unfinished evaluator has left of it, if any.
    """

    path: Path
    step: int
    checksum: str | None
    snapshot: Path | None = None

    @property
    def file(self) -> Path:
        """The file to read: the snapshot, if there is one."""
        return self.path if self.snapshot is None else self.snapshot


@dataclass(frozen=True)
class Selection:
    """The checkpoints that a command line selects; all of them if it selects none.

    Attributes:
        best: whether ``best.ckpt`` is selected.
        last: whether ``last.ckpt`` is selected.
        pattern: glob of the selected file names in ``checkpoints/``.
        every: between two multiples of this number of steps, only the first checkpoint is evaluated.
    """

    best: bool = False
    last: bool = False
    pattern: str | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: an option has a wrong value.
        """
        if self.every is not None and self.every < 1:
            raise ValueError(f"--every must be at least 1, not {self.every}")
        if self.pattern is not None and "/" in self.pattern:
            raise ValueError(f"--checkpoints {self.pattern}: give names of files in {CHECKPOINTS}/ of the run")

    def wants(self, name: str) -> bool:
        """Return whether a file of that name is selected."""
        words = [f"{word}.ckpt" for word, wanted in (("best", self.best), ("last", self.last)) if wanted]
        patterns = [*words, *([self.pattern] if self.pattern is not None else [])] or ["*.ckpt"]
        return not name.startswith(".") and any(fnmatchcase(name, pattern) for pattern in patterns)

    def paths(self, run: Path) -> list[Path]:
        """Return the selected files that exist now, sorted by name."""
        return sorted(path for path in (run / CHECKPOINTS).glob("*") if self.wants(path.name) and path.is_file())

    def due(self, candidates: Iterable[Candidate], scored: Collection[int]) -> list[Candidate]:
        """Return one checkpoint for each step, in the order of the steps, thinned out by ``every``.

        Of the checkpoints of a step, one with a name of its own comes before ``best.ckpt``, which comes before
        ``last.ckpt``, as a training replaces this one the most often. Snapshots come last.

        Args:
            candidates: the checkpoints that exist.
            scored: steps that have scores.
        """
        fixed = {"best.ckpt": 1, "last.ckpt": 2}
        by_step: dict[int, Candidate] = {}

        def order(each: Candidate) -> tuple[int, bool, int, Path]:
            return each.step, each.snapshot is not None, fixed.get(each.path.name, 0), each.path

        for candidate in sorted(candidates, key=order):
            by_step.setdefault(candidate.step, candidate)
        if self.every is None:
            return list(by_step.values())
        taken = {step // self.every: step for step in scored}
        return [each for step, each in by_step.items() if taken.setdefault(step // self.every, step) == step]

    def nothing(self, run: Path) -> str:
        """Return the message that nothing is selected, which names the checkpoints that exist."""
        held = sorted(path.name for path in (run / CHECKPOINTS).glob("*.ckpt") if not path.name.startswith("."))
        given = [f"--{word}" for word, wanted in (("best", self.best), ("last", self.last)) if wanted]
        given += [f"--checkpoints '{self.pattern}'"] if self.pattern is not None else []
        there = f"there are {', '.join(held[:8])}{', ...' if len(held) > 8 else ''}" if held else "there are none"
        selected = f"that {' '.join(given)} selects" if given else "to evaluate"
        return f"{run / CHECKPOINTS} has no checkpoint {selected}; {there}"


class CheckpointReader:
    """Reads the step and checksum of checkpoints, once for each version of a file, and prints which cannot be read."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, tuple[int, ...]], Candidate | None] = {}

    def candidates(self, paths: Iterable[Path]) -> list[Candidate]:
        """Return the readable checkpoints among files, of which some may have been deleted."""
        return [candidate for path in paths if (candidate := self.read(path)) is not None]

    def read(self, path: Path) -> Candidate | None:
        """Read a checkpoint; return None if it was deleted or is damaged."""
        version = file_version(path)
        if not version:
            print(f"{path} was removed meanwhile: skipped")
            return None
        if (path, version) not in self._known:
            self._known[path, version] = self._read(path)
        return self._known[path, version]

    def _read(self, path: Path) -> Candidate | None:
        try:
            content = read_checkpoint(path, verified=False)
            return Candidate(path, int(content["global_step"]), content.get(STAMP))
        except FileNotFoundError:
            print(f"{path} was removed meanwhile: skipped")
        except (KeyError, TypeError, AttributeError):
            print(f"{path} names no step, so it is not a checkpoint of a training: skipped")
        except ValueError as error:
            print(f"{error}: skipped")
        return None
