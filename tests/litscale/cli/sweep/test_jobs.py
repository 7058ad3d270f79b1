"""Trials as jobs: through submitit's local executor, and with a stub of sbatch."""

import os
import signal
import time
from pathlib import Path

import pytest
from cli_runs import forked, status_of

from litscale.cli.sweep.command import main
from litscale.cli.sweep.processes import slurm_executor
from litscale.cli.sweep.spec import SweepError

GRID = {"sampler": "grid", "space": {"model.lr": [0.3], "model.width": [1, 13]}, "trials": None, "jobs": 2}


def test_jobs_come_to_the_same_table_as_processes(sweep, local_cluster):
    main([sweep("here.yaml", folder="here", **GRID)])
    main([sweep(slurm={"partition": "gpu"}, **GRID)])
    assert Path("sweep/sweep.csv").read_text() == Path("here/sweep.csv").read_text()
    assert list(Path("sweep/slurm").glob("*_submitted.pkl"))


def test_a_time_is_minutes_or_as_sbatch_takes_it_and_other_options_are_submitits(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(f'#!/bin/bash\ncp "${{@: -1}}" {tmp_path}/script\necho Submitted batch job 7\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    executor = slurm_executor(tmp_path / "slurm", {"partition": "gpu", "time": "02:00:00", "gpus_per_node": 2})
    assert executor.submit(print).job_id == "7"
    script = (tmp_path / "script").read_text()
    for line in ("--partition=gpu", "--time=02:00:00", "--gpus-per-node=2"):
        assert f"#SBATCH {line}\n" in script
    with pytest.raises(SweepError, match=r"slurm: .*partitoin.* - partition \(") as raised:
        slurm_executor(tmp_path / "slurm", {"partitoin": "gpu"})
    assert "\n" not in str(raised.value)


def test_without_slurm_that_is_said(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match="slurm: "):
        slurm_executor(tmp_path / "slurm", {})


@pytest.mark.slow
def test_jobs_outlive_a_killed_sweep_and_the_next_one_follows_them(sweep, local_cluster):
    settings = {**GRID, "space": {"model.lr": [0.3], "model.width": [1, 13, 2, 3]}}
    main([sweep("here.yaml", folder="here", **settings)])
    process = forked("sweep", sweep(slurm={"partition": "gpu"}, **settings))
    while not Path("sweep/trials/0000/last.txt").exists():
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert status_of(process) == -signal.SIGKILL
    main([sweep(slurm={"partition": "gpu"}, **settings)])
    assert Path("sweep/sweep.csv").read_text() == Path("here/sweep.csv").read_text()
    starts = [path.read_text().split() for path in sorted(Path("sweep/trials").glob("*/starts.txt"))]
    assert starts == [["0"]] * 4  # none was begun twice
