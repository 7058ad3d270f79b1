"""Two nodes, played by two agents of ``torchrun`` with a process each on this machine, over gloo."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from litscale.cli.main import main
from litscale.storage.manifest import read_manifest

STRATEGY = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
KEEP = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {
        "every_n_train_steps": 2,
        "save_top_k": -1,
        "filename": "step_{step}",
        "auto_insert_metric_name": False,
    },
}
SECONDS = 900  # of a command that ends by itself


def start(folder, *words):
    """Start a command on both nodes; the agents' processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    command += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    agents = []
    for node in (0, 1):
        with (folder / f"node_{node}.txt").open("w") as printed:
            own = ["--node_rank", str(node), "-m", "litscale", *map(str, words), *STRATEGY]
            agents.append(subprocess.Popen([*command, *own], cwd=folder, stdout=printed, stderr=printed))
    return agents


def finish(folder, *words):
    """Run a command on both nodes to its end."""
    agents = start(folder, *words)
    assert [agent.wait(SECONDS) for agent in agents] == [0, 0], (folder / "node_0.txt").read_text()[-3000:]


@pytest.mark.slow
def test_a_killed_process_ends_both_nodes_and_the_run_goes_on(tmp_path, config):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    fit = ["fit", "--config", config, "--ckpt_path", "auto", "--trainer.limit_val_batches", "0"]
    # 1. kill the process of the second node
    agents = start(tmp_path, *fit, "--trainer.max_steps", "100000", "--checkpoints.every_n_steps", "2")
    while not last.exists():
        assert [agent.poll() for agent in agents] == [None, None], (tmp_path / "node_0.txt").read_text()[-3000:]
        time.sleep(0.1)
    (worker,) = Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert 0 not in [agent.wait(60) for agent in agents]
    manifest = read_manifest(run)
    assert manifest.ended
    assert manifest.attempts[0]["device_count"] == 2
    # 2. go on
    reached = torch.load(last, weights_only=True)["global_step"]
    finish(tmp_path, *fit, "--trainer.max_steps", reached + 2)
    assert torch.load(last, weights_only=True)["global_step"] == reached + 2
    assert read_manifest(run).status == "finished"
    # 3. evaluate and generate
    saved = ["--config", run / "config.yaml", "--ckpt_path", "last"]
    finish(tmp_path, "test", *saved)
    assert list(run.glob(f"scores_test_step_{reached + 2}_*.json"))
    finish(tmp_path, "predict", *saved, "--trainer.callbacks+=callbacks.PredictionWriter")
    assert list((run / "predictions").rglob("*.mid"))


@pytest.mark.slow
def test_an_evaluation_on_two_nodes_scores_as_on_one_and_each_checkpoint_once(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    content = settings("run")
    content["trainer"] |= {"max_steps": 4, "callbacks": [*content["trainer"]["callbacks"], KEEP]}
    Path("config.yaml").write_text(yaml.safe_dump(content))
    main(["fit", "--config", "config.yaml"])
    main(["evaluate", "run", "--name", "alone", "--checkpoints", "step_*"])
    finish(tmp_path, "evaluate", "run", "--name", "both", "--checkpoints", "step_*")
    tables = []
    for name in ("alone", "both"):
        with Path(f"run/evaluations/{name}/scores.csv").open() as file:
            tables.append({int(row["step"]): float(row["val/nats_per_step"]) for row in csv.DictReader(file)})
    assert list(tables[0]) == [2, 4]
    assert tables[1] == pytest.approx(tables[0], rel=1e-5)
    # one process decides and writes for both, and what is scored is not scored again
    printed = [Path(f"node_{node}.txt").read_text() for node in (0, 1)]
    assert [text.count("Step 2: ") for text in printed] == [1, 0]
    records = sorted(Path("run/evaluations/both").glob("step_*/evaluated.json"))
    times = [record.stat().st_mtime_ns for record in records]
    assert len(times) == 2
    finish(tmp_path, "evaluate", "run", "--name", "both", "--checkpoints", "step_*")
    assert [record.stat().st_mtime_ns for record in records] == times
    assert "2 steps are scored in run/evaluations/both" in Path("node_0.txt").read_text()
