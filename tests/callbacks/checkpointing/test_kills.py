"""Runs that are killed at any moment, on one and on two file systems, and disks that are full."""

import errno
import os
import random
import re
import resource
import signal
import time
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from run_toys import Model, assert_same, fit, forked, last

from callbacks import Checkpoints
from callbacks.checkpointing.files import CheckpointFiles, keep_previous
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.run_folders import RunFolderError

KILLS = 20


def slow_writes(monkeypatch, seconds):
    """Have each checkpoint take its time on the way to the disk, so that kills fall into it."""
    sync = os.fsync

    def slowly(descriptor):
        time.sleep(seconds)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slowly)


@pytest.mark.parametrize("temporary", [pytest.param("same", marks=pytest.mark.slow), "other"])
def test_killed_twenty_times(tmp_path, monkeypatch, temporary):
    if temporary == "other":  # a memory disk, as /tmp is one on many clusters
        monkeypatch.setenv("TMPDIR", "/dev/shm")
    began = time.monotonic()
    fit(tmp_path / "whole")
    longest = max(0.15, (time.monotonic() - began) / 2)  # on a busy machine, steps take longer
    run = tmp_path / "run"
    slow_writes(monkeypatch, 0.01)
    randomly = random.Random(temporary)
    path = run / "checkpoints" / "last.ckpt"
    seen = 0
    for _ in range(KILLS):
        started = tmp_path / "started"
        started.unlink(missing_ok=True)
        model = Model({"forward": lambda step, flag=started: flag.touch()})
        options = {"ckpt_path": path if path.exists() else None, "policy": Checkpoints("val/score", minutes=0)}
        child = forked(partial(fit, run, model, **options))
        ended = False
        while not (started.exists() or ended):
            time.sleep(0.005)
            ended = os.waitpid(child, os.WNOHANG) != (0, 0)  # a run that was at its end
        if not ended:
            time.sleep(randomly.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if path.exists():
            step = read_checkpoint(path)["global_step"]  # whole, and of the checksum that it says
            assert step >= seen
            seen = step
    assert seen > 0
    fit(run, ckpt_path=path, policy=Checkpoints("val/score", minutes=0))
    assert_same(last(run), last(tmp_path / "whole"))
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_run_that_was_killed_at_its_end_is_tidied_up(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    fit(tmp_path)
    keep_previous(path)  # as after a kill between the last save and the end
    fit(tmp_path, ckpt_path=path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    fit(tmp_path / "whole")
    run = tmp_path / "run"

    def fill(step):
        if step == 12:
            size = (run / "checkpoints" / "last.ckpt").stat().st_size
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))

    def work():
        try:
            fit(run, Model({"forward": fill}), policy=Checkpoints("val/score", minutes=0))
        except OSError as error:
            named = str(run / "checkpoints" / "last.ckpt") in str(error)
            os._exit(10 if named and error.errno == errno.EFBIG else 11)

    _, status = os.waitpid(forked(work), 0)
    assert os.waitstatus_to_exitcode(status) == 10
    assert last(run)["global_step"] == 12
    assert not [file for file in (run / "checkpoints").iterdir() if file.suffix == ".tmp"]
    fit(run, ckpt_path=run / "checkpoints" / "last.ckpt")
    assert_same(last(run), last(tmp_path / "whole"))


def test_a_full_disk_is_named_whatever_torch_says(tmp_path):
    """While large tensors are written, torch's own error follows the system's."""
    path = tmp_path / "last.ckpt"

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        try:
            CheckpointFiles().save_checkpoint({"state_dict": {str(n): torch.zeros(10_000) for n in range(20)}}, path)
        except OSError as error:
            os._exit(10 if error.errno == errno.EFBIG and str(path) in str(error) else 11)

    _, status = os.waitpid(forked(work), 0)
    assert os.waitstatus_to_exitcode(status) == 10
    assert not list(tmp_path.iterdir())


class Full(Callback):
    """Has no room for a checkpoint from some step on."""

    def __init__(self, step):
        self.step = step

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.global_step >= self.step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("step", "left"), [(1, r"the run has saved no step before"), (3, r"\S+/last\.ckpt is older")])
def test_a_save_that_fails_says_whether_an_older_one_is_left(tmp_path, capsys, step, left):
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, callbacks=[Full(step)], policy=Checkpoints("val/score", minutes=0))
    assert re.search(rf"^Step {step} could not be saved \(.*\); {left}$", capsys.readouterr().err, re.MULTILINE)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists() == (step > 1)


def test_a_folder_has_one_run_at_a_time(tmp_path):
    inside = tmp_path / "inside"

    def wait(step):
        inside.touch()
        time.sleep(60)

    child = forked(lambda: fit(tmp_path / "run", Model({"forward": wait})))
    while not inside.exists():
        time.sleep(0.01)
    with pytest.raises(RunFolderError, match=rf"run is in use by process {child} on .*: wait for its end, stop it, or"):
        fit(tmp_path / "run")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    fit(tmp_path / "run")  # the lock went with the process


def test_another_run_s_checkpoints_are_not_replaced_unasked(tmp_path):
    fit(tmp_path / "run", max_steps=2)
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    ways = (
        r"holds the checkpoints of another run \(last\.ckpt\): resume .*--ckpt_path auto, .*--overwrite true, or give"
    )
    with pytest.raises(RunFolderError, match=ways):
        fit(tmp_path / "run")
    fit(tmp_path / "other", max_steps=3)
    with pytest.raises(RunFolderError, match=ways):  # going on from a run elsewhere is no reason either
        fit(tmp_path / "run", ckpt_path=tmp_path / "other" / "checkpoints" / "last.ckpt")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before
    # the folder may be spelled in another way
    spelled = tmp_path / "other" / ".." / "run"
    fit(spelled, ckpt_path=tmp_path / "run" / "checkpoints" / "last.ckpt", max_steps=4)
    assert last(tmp_path / "run")["global_step"] == 4
    assert [file.name for file in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_overwriting_removes_the_old_run_when_the_new_one_trains(tmp_path):
    run = tmp_path / "run"
    fit(run, max_steps=12)
    (run / "scores_test.json").write_text("{}")
    (run / "notes.txt").write_text("mine")
    (run / "predictions").mkdir()

    class Failing(Model):
        def setup(self, stage):
            raise ValueError("the data does not fit")

    with pytest.raises(ValueError, match="the data does not fit"):
        fit(run, Failing(), policy=Checkpoints(overwrite=True))
    assert last(run)["global_step"] == 12
    fit(run, policy=Checkpoints(overwrite=True), max_steps=3)
    assert last(run)["global_step"] == 3
    left = {path.name for path in run.iterdir() if not path.name.startswith(".") and path.suffix != ".diff"}
    assert left == {"checkpoints", "manifest.json", "notes.txt"}
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
