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
        step: optimiser steps of its weights.
        checksum: of all that it holds, as it says itself; None where it says nothing.
        snapshot: what an evaluator that did not come to an end has kept of it.
    """

    path: Path
    step: int
    checksum: str | None
    snapshot: Path | None = None

    @property
    def file(self) -> Path:
        """What can be read."""
        return self.path if self.snapshot is None else self.snapshot


@dataclass(frozen=True)
class Selection:
    """The checkpoints that a command line selects; all of them, if it selects none.

    Attributes:
        best: ``best.ckpt``.
        last: ``last.ckpt``.
        pattern: file names in ``checkpoints/``, as a glob.
        every: of the steps between two multiples of this number, only the first that has a checkpoint.
    """

    best: bool = False
    last: bool = False
    pattern: str | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: one is out of range.
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
        """Choose one checkpoint for each step, in order, thinned out as ``every`` says.

        Of the checkpoints of a step, one with a name of its own is taken before ``best.ckpt`` and that before
        ``last.ckpt``, which a training replaces the most often; what an evaluator has kept comes last.

        Args:
            candidates: what there is.
            scored: steps that have their scores.
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
        """Say that nothing is selected, and what there is."""
        held = sorted(path.name for path in (run / CHECKPOINTS).glob("*.ckpt") if not path.name.startswith("."))
        given = [f"--{word}" for word, wanted in (("best", self.best), ("last", self.last)) if wanted]
        given += [f"--checkpoints '{self.pattern}'"] if self.pattern is not None else []
        there = f"there are {', '.join(held[:8])}{', ...' if len(held) > 8 else ''}" if held else "there are none"
        selected = f"that {' '.join(given)} selects" if given else "to evaluate"
        return f"{run / CHECKPOINTS} has no checkpoint {selected}; {there}"


class CheckpointReader:
    """Reads what checkpoints say of themselves, of each version of a file once; what cannot be read is told once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, tuple[int, ...]], Candidate | None] = {}

    def candidates(self, paths: Iterable[Path]) -> list[Candidate]:
        """Read the checkpoints among files, of which some may have been deleted."""
        return [candidate for path in paths if (candidate := self.read(path)) is not None]

    def read(self, path: Path) -> Candidate | None:
        """Read a checkpoint; None if it was deleted or is damaged."""
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
