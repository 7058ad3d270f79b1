"""A sweep of small trainings, killed on the way: nothing is stubbed."""

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from cli_runs import forked, status_of
from wandb_files import records

SECONDS = 900  # for what takes tens, on a machine with much else to do


@pytest.mark.slow
def test_a_killed_sweep_of_trainings_comes_to_the_same_table(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(config.read_text())
    content["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"save_dir": ".", "project": "litscale", "offline": True},
    }
    content["trainer"]["max_steps"] = 6
    config.write_text(yaml.safe_dump(content))
    for name in ("whole", "killed"):
        settings = {
            "config": "config.yaml",
            "space": {"model.optimization.lr": [0.003, 1000.0]},  # one too large: nothing finite is left
            "metric": "val/nats_per_step",
            "sampler": "grid",
            "folder": name,
        }
        Path(f"{name}.yaml").write_text(yaml.safe_dump(settings))
    # 1. one without interruption, in which one trial may diverge
    assert status_of(forked("sweep", "whole.yaml"), SECONDS) == 0
    # 2. one that is killed in its first trial, and then goes on
    process = forked("sweep", "killed.yaml")
    while not Path("killed/trials/0000/checkpoints/last.ckpt").exists():
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    assert status_of(process) == -signal.SIGKILL
    assert status_of(forked("sweep", "killed.yaml"), SECONDS) == 0
    table = Path("whole/sweep.csv").read_text()
    assert Path("killed/sweep.csv").read_text() == table
    assert "0000," in table.splitlines()[1]
    # 3. trials are ordinary runs
    saved = yaml.safe_load(Path("killed/trials/0000/config.yaml").read_text())
    assert saved["model"]["init_args"]["optimization"]["lr"] == 0.003
    assert "callbacks.SweepTrial" not in [each["class_path"] for each in saved["trainer"]["callbacks"]]
    assert Path("killed/trials/0000/checkpoints/best.ckpt").exists()
    # 4. and of one group in W&B, a resumed trial as the run that it was
    files = sorted(Path("killed/trials/0000/wandb").glob("offline-run-*/*.wandb"))
    runs = [record.run for file in files for record in records(file.read_bytes()) if record.HasField("run")]
    assert {run.run_group for run in runs} == {"killed"}
    assert len({run.run_id for run in runs}) == 1
