"""A trained run with a checkpoint of every third step, and small checkpoints of no network at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.main import main
from litscale.storage.checkpoints import stamp

KEEP = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {
        "every_n_train_steps": 3,
        "save_top_k": -1,
        "filename": "step_{step}",
        "auto_insert_metric_name": False,
    },
}


@pytest.fixture
def kept(tmp_path, settings):
    """Path of a config that trains for 9 steps in ``run`` and keeps every third."""
    content = settings("run")
    content["trainer"] |= {"max_steps": 9, "callbacks": [*content["trainer"]["callbacks"], KEEP]}
    path = tmp_path / "kept.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Where a trained run is kept for all tests."""
    return tmp_path_factory.mktemp("evaluated") / "run"


@pytest.fixture
def run(tmp_path, monkeypatch, kept, trained):
    """The run folder of `kept`, by its relative path."""
    monkeypatch.chdir(tmp_path)
    if not trained.exists():
        main(["fit", "--config", str(kept)])
        shutil.copytree("run", trained)
    shutil.copytree(trained, "run", dirs_exist_ok=True)
    return Path("run")


@pytest.fixture
def save(tmp_path):
    """Put a checkpoint that is but two numbers in its place, as a training does, and return its path."""

    def write(name, step, weight=0.0, folder=tmp_path / "run" / "checkpoints", **more):
        folder.mkdir(parents=True, exist_ok=True)
        content = {"global_step": step, "state_dict": {"weight": torch.tensor([float(step), weight])}} | more
        torch.save(stamp(content), folder / "new")
        return (folder / "new").replace(folder / name)

    return write


@pytest.fixture
def folder(tmp_path):
    """The folder of an evaluation that was begun."""
    made = EvaluationFolder(tmp_path / "run", "first")
    made.claim({"stage": "validate"})
    return made


@pytest.fixture
def status(tmp_path):
    """Write the manifest of a run whose newest attempt is of that status, of a process that there is or is not."""

    def write(value, process=None):
        (tmp_path / "run").mkdir(exist_ok=True)
        process = process or {"boot": None, "id": 0, "started": 0}
        attempt = {"status": value, "start": "2026-01-01T00:00:00+00:00", "process": process | {"host": "node7"}}
        (tmp_path / "run" / "manifest.json").write_text(json.dumps({"attempts": [attempt]}))

    return write
