"""Dashboards that get the scores of an evaluation: the training's own W&B run, TensorBoard and CSV folders."""

from __future__ import annotations

import csv
import io
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from callbacks.reporting.json_text import json_text
from litscale.cli.evaluate.folder import Evaluated
from litscale.storage.files import read_json, write_atomically
from litscale.storage.temporaries import temporary_folder

PREFIX = "evaluation"
STEP = f"{PREFIX}/step"
SENT = ".sent.json"  # in the folder of an evaluation: dashboard -> keys of the scores that it has
ROWS = "evaluation.json"  # in a folder of W&B's or TensorBoard's files: the keys of the scores that are in them
WAITING = (
    "scores are sent when the training has ended, as W&B has one writer to a run; with WANDB_MODE=shared for both they "
    "are sent at once"
)
WANDB_FOLDER = re.compile(r"(offline-)?run-(?P<time>\d{8}_\d{6})-(?P<id>.+)")


def numbers(name: str, record: Evaluated) -> dict[str, float]:
    """Return the finite scores of a step under the names that dashboards show, ``evaluation/NAME/...``."""
    return {f"{PREFIX}/{name}/{score}": value for score, value in record.scores.items() if value is not None}


class Dashboard(ABC):
    """One logger of a training run.

    Attributes:
        key: a name that none of the run's other loggers has.
        live: whether scores may be sent while the training is running.
    """

    key: str
    live: bool = True

    @abstractmethod
    def sent(self) -> set[str]:
        """Return the keys of the scores that the dashboard is known to hold, whether or not `SENT` lists them."""

    @abstractmethod
    def send(self, name: str, new: Sequence[Evaluated], every: Sequence[Evaluated]) -> None:
        """Send scores.

        Args:
            name: name of the evaluation.
            new: scores that were not sent yet.
            every: all scores.
        """


@dataclass
class WandbRun(Dashboard):
    """A run of W&B, to which points are added against the axis ``evaluation/step``.

    W&B allows one writer to a run, or several that all have ``WANDB_MODE=shared``. Without this mode, nothing can be
    sent before an online training ends. Offline, each `send` makes a folder of its own beside that of the training,
    with the same id, which appears with all points in it or not at all.

    Attributes:
        id, project, entity: those of the training's run.
        folder: the folder ``wandb`` of the training.
        mode: ``online``, ``offline`` or ``shared``.
    """

    id: str
    project: str | None
    entity: str | None
    folder: Path
    mode: Literal["online", "offline", "shared"]

    @property
    def key(self) -> str:  # type: ignore[override]
        """The kind of the dashboard and the id of its run."""
        return f"wandb {self.id}"

    @property
    def live(self) -> bool:  # type: ignore[override]
        """Whether scores may be sent while the training is running: not if it is the only writer to the server."""
        return self.mode != "online"

    def sent(self) -> set[str]:
        """Return the keys that folders of offline runs record as sent."""
        return {key for path in self.folder.glob(f"offline-run-*-{self.id}/{ROWS}") for key in read_json(path)}

    def send(self, name: str, new: Sequence[Evaluated], every: Sequence[Evaluated]) -> None:
        """Write the new scores to the server, or to a folder that `wandb sync` sends."""
        if self.mode != "offline":
            self._write(name, new, self.folder.parent)
            return
        with temporary_folder(self.folder) as staging:
            self._write(name, new, staging)
            (made,) = (staging / "wandb").glob("offline-run-*")
            write_atomically(made / ROWS, json_text([record.key for record in new]))
            made.rename(self.folder / made.name)

    def _write(self, name: str, records: Iterable[Evaluated], folder: Path) -> None:
        import wandb

        alone = self.mode != "shared"
        settings = wandb.Settings(
            console="off",
            silent=True,
            # what the training says of itself stays
            save_code=False,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            # in shared mode, the training is the first of the writers
            x_primary=alone,
            x_update_finish_state=alone,
            x_label=None if alone else f"evaluate on {socket.gethostname()}",
        )
        run = wandb.init(
            id=self.id,
            project=self.project,
            entity=self.entity,
            dir=str(folder),
            mode=self.mode,
            # offline, this has `wandb sync` continue the run's own count of steps
            resume="allow",
            settings=settings,
        )
        run.define_metric(STEP)
        for record in records:
            points = numbers(name, record)
            # By their own names, as WandbLogger defines a step for all names.
            for metric in points:
                run.define_metric(metric, step_metric=STEP)
            run.log({STEP: record.step, **points})
        run.finish()
        wandb.teardown()  # ends W&B's service, which may write for a while after `finish`


@dataclass
class LogFolder(Dashboard, ABC):
    """The folder of a logger that writes files, to which the evaluation adds its own.

    Attributes:
        kind: kind of the logger.
        folder: folder of the training's files.
    """

    kind: ClassVar[str]
    folder: Path

    @property
    def key(self) -> str:  # type: ignore[override]
        """The kind of the logger, its name and its folder, as two loggers may have folders of the same name."""
        return f"{self.kind} {self.folder.parent.name}/{self.folder.name}"


class TensorBoardFolder(LogFolder):
    """A folder of event files, in which the evaluation has a folder of its own, which TensorBoard shows as a run.

    TensorBoard reads the files in a folder one after the other. Another file beside those of the training would hide
    what the training writes later.
    """

    kind = "tensorboard"

    def sent(self) -> set[str]:
        """Return the keys listed for the event files that exist."""
        lists = [(path.parent, read_json(path)) for path in self.folder.glob(f"{PREFIX}_*/{ROWS}")]
        return {key for folder, files in lists for file in files if (folder / file).exists() for key in files[file]}

    def send(self, name: str, new: Sequence[Evaluated], every: Sequence[Evaluated]) -> None:
        """Write an event file, after the list of scores in it, so that they appear all at once or not at all."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.folder / f"{PREFIX}_{name}"
        folder.mkdir(exist_ok=True)
        with TemporaryDirectory() as staging:  # elsewhere: TensorBoard would show a folder of this one as a run
            with SummaryWriter(staging) as writer:
                for record in new:
                    for metric, value in numbers(name, record).items():
                        writer.add_scalar(metric, value, record.step)
            (made,) = Path(staging).iterdir()
            before = read_json(folder / ROWS) if (folder / ROWS).exists() else {}
            write_atomically(folder / ROWS, json_text(before | {made.name: [record.key for record in new]}))
            write_atomically(folder / made.name, made.read_bytes())


class CsvFolder(LogFolder):
    """The folder of a CSV log, in which the evaluation has a file of its own, as a training rewrites its file."""

    kind = "csv"

    def sent(self) -> set[str]:
        """Return the empty set, as scores that are sent again replace equal ones."""
        return set()

    def send(self, name: str, new: Sequence[Evaluated], every: Sequence[Evaluated]) -> None:
        """Write the evaluation's file with all scores."""
        rows = [{"step": record.step, **numbers(name, record)} for record in every]
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys(key for row in rows for key in row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.folder / f"{PREFIX}_{name}.csv", text.getvalue().encode())


FILES: dict[str, type[TensorBoardFolder] | type[CsvFolder]] = {
    "TensorBoardLogger": TensorBoardFolder,
    "CSVLogger": CsvFolder,
}


def dashboards(run: Path, loggers: Sequence[Mapping[str, Any]]) -> list[Dashboard]:
    """Return the dashboards to which a training has logged so far.

    Args:
        run: the run folder.
        loggers: ``class_path`` and ``init_args`` of its loggers, as its config gives them.
    """
    found: list[Dashboard] = []
    for logger in loggers:
        kind, options = logger["class_path"].rsplit(".", 1)[-1], logger.get("init_args") or {}
        if kind == "WandbLogger" and (own := wandb_run(run, {**options, **(logger.get("dict_kwargs") or {})})):
            found.append(own)
        elif kind in FILES and (folder := _log_folder(run, options)):
            found.append(FILES[kind](folder))
    return found


def wandb_run(run: Path, options: Mapping[str, Any]) -> WandbRun | None:
    """Return the W&B run of a training, by its logger's options and the folders that it left; None if there is none."""
    folder = _place(run, options) / "wandb"
    parsed = [match for path in folder.glob("*run-*") if (match := WANDB_FOLDER.fullmatch(path.name))]
    given = options.get("version") or options.get("id")
    own = sorted((match for match in parsed if given in (None, match["id"])), key=lambda match: match["time"])
    if not own and given is None:
        return None
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "disabled":
        return None
    offline = options.get("offline") or mode in ("offline", "dryrun") or (own and own[-1][1])
    project = options.get("project") or os.environ.get("WANDB_PROJECT", "lightning_logs")
    writes: Literal["online", "offline", "shared"] = (
        "offline" if offline else "shared" if mode == "shared" else "online"
    )
    return WandbRun(given or own[-1]["id"], project, options.get("entity"), folder, writes)


def _log_folder(run: Path, options: Mapping[str, Any]) -> Path | None:
    """Return the folder of a logger that writes files, by default the newest one; None if it has written none."""
    folder = _place(run, options) / (options.get("name") or "")
    version = options.get("version")
    if version is not None:
        folder = folder / (version if isinstance(version, str) else f"version_{version}")
        return folder if folder.is_dir() else None
    numbered = [path for path in folder.glob("version_*") if path.name.removeprefix("version_").isdigit()]
    return max(numbered, key=lambda path: int(path.name.removeprefix("version_")), default=None)


def _place(run: Path, options: Mapping[str, Any]) -> Path:
    """Return a logger's ``save_dir``; ``.`` is the run folder."""
    given = options.get("save_dir") or options.get("dir") or "."
    return run if str(given) == "." else Path(given)


def send_scores(
    folder: Path, evaluated: Mapping[int, Evaluated], targets: Iterable[Dashboard], at_work: bool
) -> list[str]:
    """Send the scores that dashboards do not have yet; only one evaluator may call this at a time.

    Args:
        folder: folder of the evaluation, which has the evaluation's name.
        evaluated: step -> scores, all of the evaluation.
        targets: the dashboards to which scores are sent.
        at_work: whether the training is running.

    Returns:
        Messages on dashboards that do not have all scores yet; the next call tries again.
    """
    path = folder / SENT
    before: dict[str, list[str]] = read_json(path) if path.exists() else {}
    sent, lines = dict(before), []
    for target in targets:
        done = {*sent.get(target.key, ()), *target.sent()}
        new = [record for record in evaluated.values() if record.key not in done]
        if new and at_work and not target.live:
            lines.append(f"{target.key}: {WAITING}")
        elif new:
            try:
                target.send(folder.name, new, list(evaluated.values()))
                done.update(record.key for record in new)
            # A server that is not reached, or a missing package, must not end hours of evaluation; scores.csv has all.
            except Exception as error:
                lines.append(f"{target.key}: scores could not be sent ({error}); this is tried again")
        if done:
            sent[target.key] = sorted(done)
    if sent != before:
        write_atomically(path, json_text(sent))
    return lines
