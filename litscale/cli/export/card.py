"""The model card of an exported model, ``README.md`` with the header that the Hugging Face Hub reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule

from callbacks.reporting.result_table import Column, ResultTable
from datamodules.base import offered
from lit_models.contracts import Generates, LevelParameters
from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.report.curves import Curve
from litscale.cli.scores import newest_scores, unusual
from litscale.storage.checkpoint_record import CheckpointRecord
from litscale.storage.manifest import MANIFEST, read_manifest
from litscale.storage.run_folders import EVALUATIONS

CARD = "README.md"
LOG = "training.csv"  # of the training, a line a logged step


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model that is exported.

    Attributes:
        run: the run folder.
        module: the module with its weights.
        config: the sections of the run's config that are shared.
        record: record of the checkpoint.
        weights: checksum of the checkpoint's state dict.
        dtype: dtype of the exported weights.
        official: whether the official layout is added.
        curves: what the training logged, metric -> step -> value.
    """

    run: Path
    module: LightningModule
    config: dict[str, Any]
    record: CheckpointRecord
    weights: str
    dtype: str
    official: bool
    curves: dict[str, Curve]

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.resolve().name


def card(given: Exported) -> str:
    """Return the model card as Markdown."""
    scores = _scores(given)
    kind = type(given.module).__name__
    step = "" if given.record.step is None else f" after {given.record.step} optimiser steps"
    parts = [
        f"---\n{yaml.safe_dump(_header(given, scores), sort_keys=False)}---",
        f"# {given.name}",
        f"A `{kind}` of litscale{step}, weights in {given.dtype}.",
        "## Parameters",
        _parameters(given.module).markdown(),
        "## Data",
        f"```yaml\n{yaml.safe_dump(given.config['data'], sort_keys=False)}```"
        if "data" in given.config
        else "Unknown.",
        "## Scores",
        _score_table(scores).markdown() if scores else "These weights were not evaluated.",
        *(
            [f"The scores were measured before the weights were rounded to {given.dtype}."]
            if _rounded(given, scores)
            else []
        ),
        *_training(given),
        "## How to load",
        _loading(given),
    ]
    return "\n\n".join(parts) + "\n"


def _header(given: Exported, scores: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """Return the header that the Hub reads: library, tags, and the scores as a model index."""
    data = given.config.get("data", "unknown")
    dataset = str(data.get("class_path", "unknown") if isinstance(data, dict) else data).rsplit(".", 1)[-1]
    header: dict[str, Any] = {"library_name": "litscale", "tags": ["litscale", type(given.module).__name__]}
    rounded = ", before rounding" if _rounded(given, scores) else ""
    results = [
        {
            "task": {"type": "other", "name": "generation"},
            "dataset": {"type": dataset, "name": f"{dataset}, {evaluation}{rounded}"},
            "metrics": [{"type": name, "name": name, "value": v} for name, v in values.items() if v is not None],
        }
        for evaluation, values in scores.items()
    ]
    return header | ({"model-index": [{"name": given.name, "results": results}]} if results else {})


def _rounded(given: Exported, scores: dict[str, dict[str, float | None]]) -> bool:
    """Return whether there are scores, and they belong to the weights before rounding, not to those of the file."""
    return bool(scores) and given.dtype != "float32"


def _parameters(module: LightningModule) -> ResultTable:
    """Return a table of parameter counts by level, or by part if there are no levels; the last row counts all."""
    levels = offered(module, LevelParameters)
    if levels is not None:
        counts = {name: sum(p.numel() for p in given) for name, given in levels.parameters_by_level().items()}
    else:
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in module.named_children()}
    counts = {name: count for name, count in counts.items() if count}
    rows = {name: {"count": f"{count:,}"} for name, count in counts.items()}
    rows["all"] = {"count": f"{sum(p.numel() for p in module.parameters()):,}"}
    return ResultTable("level" if levels is not None else "part", {"count": Column("parameters", right=True)}, rows)


def _scores(given: Exported) -> dict[str, dict[str, float | None]]:
    """Return evaluation -> scores of exactly these weights; scores of other checkpoints would mislead."""
    found: dict[str, dict[str, float | None]] = {}
    for path in sorted((given.run / EVALUATIONS).glob("*/settings.json")):
        folder = EvaluationFolder(given.run, path.parent.name)
        for record in folder.evaluated().values():
            if record.weights == given.weights:
                found[f"evaluation {path.parent.name}{folder.unusual}"] = record.scores
    for stage in ("validate", "test"):
        newest = newest_scores(given.run, stage)
        if newest is not None and newest.sha256 == given.record.sha256:
            found[f"{stage}{unusual(newest.settings)}"] = newest.scores
    return found


def _score_table(scores: dict[str, dict[str, float | None]]) -> ResultTable:
    """Return a table with scores as rows and evaluations as columns."""
    rows: dict[str, dict[str, float | str | None]] = {}
    for evaluation, values in scores.items():
        for name, value in values.items():
            rows.setdefault(name, {})[evaluation] = "not finite" if value is None else value
    return ResultTable("score", {name: Column(name, missing="") for name in scores}, rows)


def _training(given: Exported) -> list[str]:
    """Return a section on the training if the run has a manifest or a log, without names of machines and people."""
    sentences = []
    if (given.run / MANIFEST).is_file():
        attempts = read_manifest(given.run).attempts
        hours = sum(each.get("device_hours") or 0.0 for each in attempts)
        count = "one attempt" if len(attempts) == 1 else f"{len(attempts)} attempts"
        sentences.append(f"Begun on {attempts[0]['start'][:10]}; {hours:.2f} device hours in {count}.")
    if given.curves:
        sentences.append(f"`{LOG}` holds what was logged.")
    return ["## Training", " ".join(sentences)] if sentences else []


def _loading(given: Exported) -> str:
    """Return the code that loads the folder, and the command that generates with it."""
    kind = type(given.module)
    package = "lit_models" if kind.__module__.startswith("lit_models.") else kind.__module__
    generates = offered(given.module, Generates) is not None
    lines = [f"from {package} import {kind.__name__}", "", f'model = {kind.__name__}.from_pretrained("FOLDER")']
    lines += ["sample = model.generate(batch_size=2, seed=0)"] if generates else []
    code = "\n".join(lines)
    texts = [f"```python\n{code}\n```"]
    if generates:
        command = "litscale predict --model.pretrained FOLDER --trainer.default_root_dir runs/samples"
        texts.append(f"```sh\n{command}\n```")
    if given.official:
        texts.append("`official/` holds the weights in the layout of the official code.")
    return "\n\n".join(texts)
