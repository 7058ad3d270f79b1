"""The manifest of a training: of one process and two, and of each way in which a training ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from rank_runs import run as run_ranks
from run_toys import Model, fit, forked

from callbacks import Checkpoints
from litscale.storage import manifest as storage
from litscale.storage.manifest import read_manifest
from litscale.storage.provenance import SLURM


def last(run):
    return run / "checkpoints" / "last.ckpt"


def test_a_run_that_finishes_says_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/litscale", "fit", "--logger.api_key=abc"])
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    fit(tmp_path, max_steps=4)
    (attempt,) = read_manifest(tmp_path).attempts
    assert (attempt["status"], attempt["reason"], attempt["step"]) == ("finished", None, 4)
    assert attempt["command"] == ["litscale", "fit", "--logger.api_key=***"]
    assert attempt["slurm"] == {"SLURM_ARRAY_TASK_ID": "3"}
    assert attempt["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert attempt["hosts"] == [socket.gethostname()]
    assert list(attempt["devices"].values()) == [1]
    assert (attempt["cuda"], attempt["resumed_from"]) == (torch.version.cuda, None)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert attempt["code"][0]["commit"] == head.stdout.strip() or head.returncode  # a copy that is no repository
    assert attempt["device_hours"] == attempt["wall_hours"] > 0


def raising(error):
    def here(step):
        if step == 2:
            raise error

    return here


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no token: abc here"), "failed", "ValueError: no token: *** here"),
        (SystemExit(143), "interrupted", "SIGTERM"),
        (SystemExit(130), "interrupted", "Ctrl-C"),
        (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
)
def test_how_a_run_ended_and_resumed_runs_are_further_attempts(tmp_path, error, status, reason):
    with pytest.raises((ValueError, SystemExit)):
        fit(tmp_path, Model({"forward": raising(error)}))
    found = read_manifest(tmp_path)
    assert (found.status, found.ended, found.attempts[0]["reason"]) == (status, True, reason)
    assert found.attempts[0]["step"] == 2
    fit(tmp_path, ckpt_path=last(tmp_path), max_steps=3)
    first, second = read_manifest(tmp_path).attempts
    assert first == found.attempts[0]
    assert (second["status"], second["step"], second["resumed_from"]) == ("finished", 3, str(last(tmp_path)))


def test_when_the_manifest_says_so_the_last_step_is_saved(tmp_path, monkeypatch):
    seen = []
    write = storage.ManifestWriter.end
    monkeypatch.setattr(
        storage.ManifestWriter,
        "end",
        lambda self, *args, **facts: (
            seen.append(torch.load(last(tmp_path), weights_only=True)),
            write(self, *args, **facts),
        ),
    )
    with pytest.raises(ValueError, match="x"):
        fit(tmp_path, Model({"forward": raising(ValueError("x"))}))
    assert [each["global_step"] for each in seen] == [2]


def test_a_killed_run_has_ended_and_the_next_says_so(tmp_path):
    def kill(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(forked(partial(fit, tmp_path, Model({"forward": kill}), policy=Checkpoints(minutes=0))), 0)
    found = read_manifest(tmp_path)
    assert (found.status, found.ended) == ("running", True)
    fit(tmp_path, ckpt_path=last(tmp_path), max_steps=3)
    first, second = read_manifest(tmp_path).attempts
    assert (first["status"], first["reason"][:6], second["status"]) == ("interrupted", "killed", "finished")


def test_a_run_that_fails_before_its_first_step_says_so_and_leaves_the_results_of_another(tmp_path):
    class Failing(Model):
        def validation_step(self, batch, batch_idx):
            raise ValueError("x")

    fit(tmp_path, max_steps=4)
    with pytest.raises(ValueError, match="x"):  # before the old run is cleared away
        fit(tmp_path, Failing(), policy=Checkpoints(overwrite=True), num_sanity_val_steps=1)
    assert [attempt["status"] for attempt in read_manifest(tmp_path).attempts] == ["finished", "failed"]
    fit(tmp_path, policy=Checkpoints(overwrite=True), max_steps=4)
    assert [attempt["status"] for attempt in read_manifest(tmp_path).attempts] == ["finished"]


def test_a_search_before_the_training_resumes_nothing(tmp_path):
    fit(tmp_path, max_steps=4)
    finder = BatchSizeFinder(max_trials=1, steps_per_trial=1)
    fit(tmp_path, policy=Checkpoints(overwrite=True), max_steps=3, callbacks=[finder])
    assert [attempt["resumed_from"] for attempt in read_manifest(tmp_path).attempts] == [None]  # the old run is gone
    with pytest.raises(ValueError, match="holds the checkpoints of another run"):
        fit(tmp_path, max_steps=3, callbacks=[finder])


def test_a_run_that_is_refused_and_a_trial_change_nothing(tmp_path):
    fit(tmp_path, max_steps=4)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="holds the checkpoints of another run"):
        fit(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    fit(tmp_path / "trial", fast_dev_run=True)
    assert not (tmp_path / "trial").exists()


def test_a_full_disk_at_the_end_is_said_and_changes_nothing(tmp_path, monkeypatch, capsys):
    def full(self, *args, **facts):
        raise OSError(28, "No space left on device", "manifest.json")

    monkeypatch.setattr(storage.ManifestWriter, "end", full)
    assert fit(tmp_path, max_steps=4).global_step == 4
    assert "could not record how the run ended: [Errno 28]" in capsys.readouterr().err


def test_two_processes_write_one_attempt(tmp_path):
    run_ranks(Path(__file__).with_name("two_ranks_manifest.py"), tmp_path / "two", ranks=2)
    (attempt,) = json.loads((tmp_path / "two" / "manifest.json").read_text())["attempts"]
    assert (attempt["status"], attempt["strategy"], attempt["device_count"]) == ("finished", "DDPStrategy", 2)
    assert (attempt["hosts"], list(attempt["devices"].values())) == ([socket.gethostname()], [2])
    assert attempt["device_hours"] == 2 * attempt["wall_hours"]
