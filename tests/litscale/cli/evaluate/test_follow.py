"""The daily life of a cluster: a run trains, an evaluator follows it, and both are killed on the way."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from cli_runs import forked, status_of
from lightning.pytorch import Callback
from wandb_files import history, records

SECONDS = 600  # for what takes a few, on a machine with much else to do


class Paced(Callback):
    """Takes its time for each step, so that there is something to follow."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        time.sleep(0.5)


class KilledOnce(Callback):
    """Kills its own process in the middle of the second evaluation, the first time."""

    evaluations = 0

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.evaluations += 1
        if self.evaluations == 2 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_run_and_its_evaluator_are_killed_and_every_checkpoint_is_scored_once(tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(kept.read_text())
    content["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"save_dir": ".", "project": "litscale", "id": "followed", "offline": True},
    }
    content["trainer"]["callbacks"].append({"class_path": f"{__name__}.Paced"})
    kept.write_text(yaml.safe_dump(content))

    # 1. a training that will be killed after its fifth step, and an evaluator that will be in its second evaluation
    killer = ["--trainer.callbacks+=cli_runs.Killer", "--trainer.callbacks.step=5"]
    training = forked("fit", "--config", kept, *killer)
    while not Path("run/config.yaml").exists():
        time.sleep(0.1)
    layer = {"trainer": {"callbacks+": [{"class_path": f"{__name__}.KilledOnce"}]}}
    Path("layer.yaml").write_text(yaml.safe_dump(layer))
    evaluate = ["evaluate", "run", "--watch", "--patience", "10", "--poll", "0.2", "--config", "layer.yaml"]
    evaluator = forked(*evaluate)
    assert status_of(training, SECONDS) == -signal.SIGKILL

    # 2. both are started again, whenever they end
    training = forked("fit", "--config", kept, "--ckpt_path", "last")
    assert status_of(evaluator, SECONDS) == -signal.SIGKILL
    evaluator = forked(*evaluate)
    assert status_of(training, SECONDS) == 0
    assert status_of(evaluator, SECONDS) == 0

    # 3. every checkpoint that was kept has its scores, once, at its own step: in the table ...
    with Path("run/evaluations/validate/scores.csv").open() as file:
        table = {int(row["step"]): float(row["val/nats_per_step"]) for row in csv.DictReader(file)}
    assert {3, 6, 9} <= set(table)
    for step in table:
        record = json.loads(Path(f"run/evaluations/validate/step_{step}/evaluated.json").read_text())
        assert record["step"] == step
    # ... and in the W&B run of the training, whose own curve is still there
    files = sorted(Path("run/wandb").glob("offline-run-*-followed/run-followed.wandb"))
    rows = [row for file in files for row in history(file)]
    points = [
        (row["evaluation/step"], row["evaluation/validate/val/nats_per_step"])
        for row in rows
        if "evaluation/step" in row
    ]
    assert sorted(points) == sorted(table.items())
    assert any("train/loss" in row for row in rows)  # all that W&B's service has written by the time of a kill
    defined = [record.metric for file in files for record in records(file.read_bytes()) if record.HasField("metric")]
    axes = {metric.name: metric.step_metric for metric in defined if metric.name.startswith("evaluation/")}
    assert axes["evaluation/validate/val/nats_per_step"] == "evaluation/step"
    assert (
        len({record.run.run_id for file in files for record in records(file.read_bytes()) if record.HasField("run")})
        == 1
    )
