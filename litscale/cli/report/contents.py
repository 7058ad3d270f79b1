"""`RunContents`: the parts of a run folder that a report shows."""

from __future__ import annotations

import base64
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lit_models.runs import CONFIG, read_config
from litscale.cli.evaluate.folder import Evaluated, EvaluationFolder
from litscale.cli.report.curves import LOGS, Curve, read_curves
from litscale.cli.scores import Scores, newest_scores
from litscale.storage.files import named_errors, read_json
from litscale.storage.manifest import MANIFEST, Manifest, read_manifest
from litscale.storage.run_folders import CHECKPOINTS, EVALUATIONS
from litscale.storage.secrets import mask_yaml

LARGEST = 4 * 2**20  # bytes of a file that a report holds
TINY = 256  # pixels of a picture's width below which it is enlarged
MEDIA = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml", ".wav": "audio/wav", ".mid": "audio/midi"}
PICTURES = ("timeline.png", "decode_*.png", "masks.png", "bench_*.png")
TABLES = ("music_*.md", "quality_*.md", "decode_*.md", "bench_*.md")


@dataclass(frozen=True)
class Limits:
    """How much of a run a report holds.

    Attributes:
        samples: largest number of samples from each folder.
        folders: largest number of folders of samples; the newest ones are shown.
        root: a folder that must contain all files, even those behind links; None if they may lie anywhere.
    """

    samples: int = 4
    folders: int = 4
    root: Path | None = None


@dataclass(frozen=True)
class Sample:
    """A generated sample.

    Attributes:
        name: name of its files, without ending.
        media: ending (``.png``, ``.gif``, ``.svg``, ``.wav``, ``.mid``) -> data URI.
        statistics: name -> value.
        tiny: whether its picture is so small that its pixels are shown enlarged.
    """

    name: str
    media: dict[str, str]
    statistics: dict[str, float]
    tiny: bool


@dataclass(frozen=True)
class SampleFolder:
    """Samples of one request or of one step of a training.

    Attributes:
        name: path relative to the run folder.
        sheets: file name -> data URI of pictures of all samples.
        samples: the first samples, as many as the limit allows.
        total: number of samples in the folder.
        left_out: names of files that are too large.
    """

    name: str
    sheets: dict[str, str]
    samples: list[Sample]
    total: int
    left_out: list[str]


@dataclass(frozen=True)
class MarkdownTable:
    """A table of a Markdown file.

    Attributes:
        file: path of the file, relative to the run folder.
        title: the sentence before the table; empty if there is none.
        head: headings of the columns.
        rows: cells of each row.
    """

    file: str
    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class RunContents:
    """The parts of a run that a report shows.

    Attributes:
        folder: the run folder.
        name: name of the run, which no other run of the report has.
        config: text of its config.yaml, with secrets masked.
        model: name of the module's class, without package.
        data: name of the data module's class, without package; empty if the config names none.
        manifest: its manifest; None if there is none.
        scores: stage (``test``, ``validate``) -> newest scores.
        evaluations: name of the evaluation, with unusual settings -> step -> scores.
        curves: metric -> step -> value.
        checkpoints: file names of the checkpoints.
        pictures: file -> data URI, such as timelines of decoding.
        tables: the tables in files that evaluations write.
        samples: folders of samples, the newest first.
    """

    folder: Path
    name: str
    config: str
    model: str
    data: str
    manifest: Manifest | None
    scores: dict[str, Scores]
    evaluations: dict[str, dict[int, Evaluated]]
    curves: dict[str, Curve]
    checkpoints: list[str]
    pictures: dict[str, str]
    tables: list[MarkdownTable]
    samples: list[SampleFolder]

    @property
    def last_step(self) -> int | None:
        """The last step that was logged; None if none was."""
        return max((step for curve in self.curves.values() for step in curve), default=None)


def read_contents(folder: Path, name: str, limits: Limits) -> RunContents:
    """Read a run folder; nothing is written.

    Args:
        folder: the run folder.
        name: name of the run in the report.
        limits: how much of the run is read.

    Raises:
        FileNotFoundError: there is no such folder, or it has no config.yaml.
        ValueError: a file in the folder is damaged; the message names it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the folder of a run")
    reader = _Reader(folder, limits)
    config = read_config(folder / CONFIG)
    stages = ("test", "validate") if reader.holds_all("scores_*.json") else ()
    newest = {stage: newest_scores(folder, stage) for stage in stages}
    names = [path.parent.name for path in reader.files(f"{EVALUATIONS}/*/settings.json")]
    inside = [each for each in names if reader.holds_all(f"{EVALUATIONS}/{glob.escape(each)}/step_*/*.json")]
    evaluations = {each: EvaluationFolder(folder, each) for each in inside}
    return RunContents(
        folder=folder,
        name=name,
        config=mask_yaml((folder / CONFIG).read_text()),
        model=_class_of(config["model"]),
        data=_class_of(config.get("data")),
        manifest=read_manifest(folder) if reader.files(MANIFEST) else None,
        scores={stage: scores for stage, scores in newest.items() if scores is not None},
        evaluations={each + made.unusual: made.evaluated() for each, made in evaluations.items()},
        curves=read_curves([path for pattern in LOGS for path in reader.files(pattern)]),
        checkpoints=[path.name for path in reader.files(f"{CHECKPOINTS}/[!.]*.ckpt")],
        pictures={str(path.relative_to(folder)): uri for path in reader.shown(PICTURES) if (uri := reader.uri(path))},
        tables=[table for path in reader.shown(TABLES) for table in _tables(path, folder)],
        samples=list(reader.sample_folders()),
    )


class _Reader:
    """Reads files of a run folder within the limits."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits

    def files(self, pattern: str) -> list[Path]:
        """Return the files that match a pattern and are inside the root, sorted by path."""
        return sorted(path for path in self._folder.glob(pattern) if path.is_file() and self._allowed(path))

    def holds_all(self, pattern: str) -> bool:
        """Return whether all files that match a pattern are inside the root."""
        return all(map(self._allowed, self._folder.glob(pattern)))

    def shown(self, patterns: tuple[str, ...]) -> list[Path]:
        """Return the files that match patterns, in the run folder and in the last step of each evaluation."""
        found = [path for pattern in patterns for path in self.files(pattern)]
        for evaluation in self._folder.glob(f"{EVALUATIONS}/*"):
            steps = [path for path in evaluation.glob("step_*") if _number(path) is not None]
            if steps:
                last = max(steps, key=lambda path: _number(path) or 0).relative_to(self._folder)
                found += [path for pattern in patterns for path in self.files(f"{last}/{pattern}")]
        return found

    def uri(self, path: Path) -> str | None:
        """Return a file as a data URI; None if it is too large."""
        if path.stat().st_size > LARGEST:
            return None
        return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    def sample_folders(self) -> Iterator[SampleFolder]:
        """Yield the folders of predictions and of the training's samples, the newest first."""
        made = [path for kind in ("predictions", "samples") for path in self._folder.glob(f"{kind}/*")]
        folders = [path for path in made if path.is_dir() and not path.name.startswith(".") and self._allowed(path)]
        newest = sorted(folders, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
        for folder in newest[: self._limits.folders]:
            yield self._samples(folder)

    def _samples(self, folder: Path) -> SampleFolder:
        place = folder.relative_to(self._folder)
        files = [path for path in self.files(f"{glob.escape(str(place))}/*") if path.suffix in MEDIA]
        by_name: dict[str, list[Path]] = {}
        for path in files:
            by_name.setdefault(path.stem, []).append(path)
        sheets = [by_name.pop(name)[0] for name in ("sheet", "steps") if name in by_name]
        left_out: list[str] = []

        def embedded(paths: list[Path]) -> dict[Path, str]:
            uris = {path: self.uri(path) for path in paths}
            left_out.extend(path.name for path, uri in uris.items() if uri is None)
            return {path: uri for path, uri in uris.items() if uri is not None}

        samples = []
        for name, paths in list(by_name.items())[: self._limits.samples]:
            media = {path.suffix: uri for path, uri in embedded(paths).items()}
            records = self.files(f"{glob.escape(str(place))}/{glob.escape(name)}.json")
            tiny = any(path.suffix == ".png" and _width(path) < TINY for path in paths)
            samples.append(Sample(name, media, _statistics(records[0]) if records else {}, tiny))
        pictures = {path.name: uri for path, uri in embedded(sheets).items()}
        return SampleFolder(str(place), pictures, samples, len(by_name), left_out)

    def _allowed(self, path: Path) -> bool:
        root = self._limits.root
        return root is None or path.resolve().is_relative_to(root)


def _class_of(section: Any) -> str:
    """Return the class that a section of a config names, without package; empty if it names none."""
    named = section.get("class_path", "") if isinstance(section, dict) else section or ""
    return str(named).rsplit(".", 1)[-1]


def _number(path: Path) -> int | None:
    """Return the step in the name of a folder such as ``step_5000``; None for other names."""
    text = path.name.removeprefix("step_")
    return int(text) if text.isdigit() else None


def _width(path: Path) -> int:
    """Return the width of a PNG in pixels."""
    with named_errors(path, "damaged, or no PNG"), Image.open(path, formats=["PNG"]) as image:
        return image.width


def _statistics(path: Path) -> dict[str, float]:
    """Return the statistics in a sample's record, without undefined ones, such as the range of no notes."""
    with named_errors(path, "damaged; delete it"):
        statistics = read_json(path).get("statistics") or {}
        return {name: float(value) for name, value in statistics.items() if value is not None}


def _tables(path: Path, folder: Path) -> Iterator[MarkdownTable]:
    """Yield the tables of a Markdown file."""
    title, lines = "", list[list[str]]()
    with named_errors(path, "damaged, or no text"):
        text = path.read_text()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]
            if not all(re.fullmatch(":?-+:?", cell) for cell in cells):
                lines.append(cells)
        elif lines:
            head, *rows = lines
            yield MarkdownTable(str(path.relative_to(folder)), title, head, rows)
            title, lines = "", []
        elif line and not line.startswith(("#", "Checkpoint: ")):
            title = line
