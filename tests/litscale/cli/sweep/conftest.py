"""A sweep whose trials are stubs, which take tenths of a second."""

import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")
STUB = [sys.executable, str(Path(__file__).with_name("stub_litscale.py"))]
CONTENT = {
    "config": "base.yaml",
    "space": {"model.lr": {"low": 0.0, "high": 1.0}, "model.width": [1, 2]},
    "metric": "val/loss",
    "sampler": "random",
    "trials": 4,
    "folder": "sweep",
}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Write the file of a sweep, with changes; a change to None leaves a setting out."""
    from litscale.cli.sweep import command, processes

    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[4]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setattr(processes, "COMMAND", STUB)
    monkeypatch.setattr("litscale.cli.parsed.COMMAND", STUB)
    monkeypatch.setattr(command, "POLL", 0.02)
    Path("base.yaml").write_text("{}")

    def write(name="sweep.yaml", **changes):
        content = {key: value for key, value in (CONTENT | changes).items() if value is not None}
        Path(name).write_text(yaml.safe_dump(content))
        return name

    return write


@pytest.fixture
def local_cluster(monkeypatch):
    """Trials are jobs of submitit's local executor in place of SLURM's."""
    submitit = pytest.importorskip("submitit")
    from litscale.cli.sweep import command

    made = []

    def executor(folder, options):
        made.append(submitit.LocalExecutor(folder))
        return made[-1]

    monkeypatch.setattr(command, "slurm_executor", executor)
    return made
