"""Run folders and checkpoints as the command line knows them."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import yaml
from cli_runs import forked, status_of

from litscale.cli.main import main
from litscale.cli.runs import newest_checkpoint, requeued_checkpoint
from litscale.storage.checkpoints import stamp
from litscale.storage.manifest import read_manifest
from litscale.storage.run_folders import RunFolderError, clear_run_folder, lock_run_folder

OPTIONLESS = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader


class Optionless(LightningDataModule):
    canvas_shape, alphabet, batch_size = (1, 8, 8), 2, 4

    def train_dataloader(self):
        return DataLoader([{"canvas": torch.zeros(1, 8, 8, dtype=torch.uint8)}] * 8, self.batch_size)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, settings):
    """A run of six steps, and its config; copy it before changing it."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(folder / "run")))
    main(["fit", "--config", str(path), "--trainer.max_steps", "6"])
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, whose config names the copy."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace(str(trained), str(folder)))
    return folder


def step(path):
    """The step that a checkpoint is of."""
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize("word", ["last", "best"])
def test_words_name_checkpoints_of_the_run(run, tmp_path, word):
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", word])
    # an evaluation with a folder of its own means the run whose config it is given
    own = ["--trainer.default_root_dir", str(tmp_path / "evaluation")]
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", word, *own])
    assert list((tmp_path / "evaluation").glob("scores_validate_step_6_*.json"))


def test_last_goes_on_with_the_run_and_its_config_stays(run):
    before = (run / "config.yaml").read_bytes()
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", "8"])
    assert step(run / "checkpoints" / "last.ckpt") == 8
    assert (run / "config.yaml").read_bytes() == before
    went_on = yaml.safe_load((run / "config_from_step_6.yaml").read_text())
    assert went_on["trainer"]["max_steps"] == 8
    assert "ckpt_path" not in went_on
    assert "overwrite" not in went_on


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("best", FileNotFoundError, "--ckpt_path best: there is no checkpoints/best.ckpt in nowhere; give the run's"),
        ("FOLDER", ValueError, r"run is a folder: give the file of a checkpoint, e\.g\. .*checkpoints/last\.ckpt"),
        ("TEXT", ValueError, r"--ckpt_path .*notes\.txt"),
    ],
)
def test_checkpoints_that_are_none(run, tmp_path, monkeypatch, given, error, message):
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "notes.txt"
    notes.write_text("not a checkpoint")
    path = {"FOLDER": str(run), "TEXT": str(notes)}.get(given, given)
    config = tmp_path / "config.yaml"  # no run's
    config.write_text((run / "config.yaml").read_text())
    with pytest.raises(error, match=message):
        main(["fit", "--config", str(config), "--trainer.default_root_dir", "nowhere", "--ckpt_path", path])


def test_a_run_without_a_best_checkpoint_has_a_last_one(run):
    (run / "checkpoints" / "best.ckpt").unlink(missing_ok=True)
    message = r"run has no checkpoints/best\.ckpt, only last\.ckpt: give --ckpt_path last .*checkpoints\.monitor"
    with pytest.raises(FileNotFoundError, match=message):
        main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "best"])


def test_a_used_folder_is_refused_and_overwritten_on_demand(run):
    command = ["fit", "--config", str(run / "config.yaml"), "--trainer.max_steps", "3"]
    before = {path: path.read_bytes() for path in [run / "config.yaml", *(run / "checkpoints").iterdir()]}
    with pytest.raises(RunFolderError, match=r"--ckpt_path auto, .*--overwrite true"):
        main(command)
    assert before == {path: path.read_bytes() for path in before}
    main([*command, "--overwrite", "true"])
    assert step(run / "checkpoints" / "last.ckpt") == 3
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 3
    assert "overwrite" not in saved
    assert "overwrite" not in saved["checkpoints"]
    with pytest.raises(RunFolderError):  # the saved config does not overwrite by itself
        main(["fit", "--config", str(run / "config.yaml")])


def test_a_folder_of_a_run_that_is_training_is_refused_without_ways_that_are_closed(run):
    owner = lock_run_folder(run)
    for option in ([], ["--ckpt_path", "last"], ["--overwrite", "true"]):
        with pytest.raises(
            RunFolderError, match=r"is in use by process .*: wait for its end, stop it, or give another"
        ):
            main(["fit", "--config", str(run / "config.yaml"), *option])
    owner.release()


@pytest.mark.slow
def test_sigterm_at_one_of_two_processes_ends_both_with_143_and_nothing_lost(run, tmp_path):
    log = logging.FileHandler(tmp_path / "log.txt")
    logging.getLogger("lightning.pytorch").addHandler(log)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["fit", "--config", run / "config.yaml", "--ckpt_path", "last", "--trainer.max_steps", 100000]
    command += ["--trainer.limit_val_batches", 0, "--trainer.devices", 2, "--trainer.strategy", "ddp"]
    ranks = [forked(*command, LOCAL_RANK=str(rank), MASTER_PORT=str(port)) for rank in (0, 1)]
    logging.getLogger("lightning.pytorch").removeHandler(log)
    path = run / "checkpoints" / "last.ckpt"
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:
        assert os.waitpid(ranks[0], os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    os.kill(ranks[0], signal.SIGTERM)
    assert [status_of(rank) for rank in ranks] == [143, 143]
    reached = step(path)
    assert f"SIGTERM: saved step {reached} as " in (tmp_path / "log.txt").read_text()
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", str(reached + 1)])
    assert step(path) == reached + 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_sigterm_ends_a_training_with_143_and_nothing_lost(run, tmp_path, devices):
    command = [sys.executable, "-m", "litscale", "fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    # without validations, which a signal ends at once and without a word
    command += ["--trainer.max_steps", "100000", "--trainer.enable_progress_bar", "false"]
    command += ["--trainer.limit_val_batches", "0"]
    command += ["--trainer.devices", str(devices), "--trainer.strategy", "ddp" if devices > 1 else "auto"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    path = run / "checkpoints" / "last.ckpt"
    while step(path) <= 8:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "SIGTERM: saved step" in errors
    assert "Traceback" not in errors
    reached = step(path)
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", str(reached + 1)])
    assert step(path) == reached + 1


def test_a_run_from_another_run_s_checkpoint_keeps_its_own_config(run, tmp_path):
    other = tmp_path / "other"
    command = ["fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    command += ["--trainer.default_root_dir", str(other), "--trainer.max_steps"]
    main([*command, "7"])
    main([*command, "8", "--overwrite", "true"])
    assert yaml.safe_load((other / "config.yaml").read_text())["trainer"]["max_steps"] == 8
    assert not list(other.glob("config_from_step_*"))


def test_a_run_that_saves_nothing_leaves_the_config_of_another(run):
    before = (run / "config.yaml").read_bytes()
    options = ["--trainer.enable_checkpointing", "false", "--trainer.max_steps", "1", "--model.optimization.lr", "0.5"]
    main(["fit", "--config", str(run / "config.yaml"), *options])
    assert (run / "config.yaml").read_bytes() == before


def test_a_callback_that_would_write_our_files_is_refused(config):
    saver = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    with pytest.raises(
        ValueError, match=r"a ModelCheckpoint would write last\.ckpt or best\.ckpt, .*checkpoints\.monitor"
    ):
        main(["fit", "--config", str(config), saver, "--trainer.callbacks.filename", "best"])


def test_evaluations_mean_the_run_whose_config_they_have(run, tmp_path):
    other = tmp_path / "other"
    main(
        [
            "fit",
            "--config",
            str(run / "config.yaml"),
            "--trainer.default_root_dir",
            str(other),
            "--trainer.max_steps",
            "3",
        ]
    )
    own = ["--trainer.default_root_dir", str(other)]
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "last", *own])
    assert list(other.glob("scores_validate_step_6_*.json"))


def test_what_a_batch_size_finder_chose_is_saved(tmp_path, config):
    finder = "--trainer.callbacks+=lightning.pytorch.callbacks.BatchSizeFinder"
    options = {"init_val": 3, "max_trials": 1, "steps_per_trial": 1}
    words = [word for name, value in options.items() for word in (f"--trainer.callbacks.{name}", str(value))]
    main(["fit", "--config", str(config), finder, *words, "--trainer.max_steps", "1"])
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["data"]["init_args"]["batch_size"] == 3  # where 4 was given
    paths = [callback["class_path"] for callback in saved["trainer"]["callbacks"]]
    assert "callbacks.LevelLosses" in paths
    assert "lightning.pytorch.callbacks.BatchSizeFinder" not in paths
    main(["fit", "--config", str(tmp_path / "run" / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", "2"])
    assert step(tmp_path / "run" / "checkpoints" / "last.ckpt") == 2


FINDERS = {
    "LearningRateFinder": {"num_training_steps": 20, "min_lr": 1e-4, "max_lr": 0.1},
    "BatchSizeFinder": {"init_val": 3, "max_trials": 1, "steps_per_trial": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FINDERS)
def test_a_run_after_a_search_is_the_run_with_what_was_found(tmp_path, config, name):
    finder = [f"--trainer.callbacks+=lightning.pytorch.callbacks.{name}"]
    finder += [f"--trainer.callbacks.{option}={value}" for option, value in FINDERS[name].items()]
    for folder, words in (("searched", finder), ("given", [])):
        path = tmp_path / "searched" / "config.yaml" if folder == "given" else config
        words += ["--trainer.max_steps", "4", "--trainer.default_root_dir", str(tmp_path / folder)]
        main(["fit", "--config", str(path), *words])
    saved = yaml.safe_load((tmp_path / "searched" / "config.yaml").read_text())
    assert not [callback for callback in saved["trainer"]["callbacks"] if name in callback["class_path"]]
    if name == "LearningRateFinder":
        assert 1e-4 < saved["model"]["init_args"]["optimization"]["lr"] < 0.1
    searched, given = (torch.load(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("searched", "given"))
    assert searched["global_step"] == given["global_step"] == 4
    assert searched["lr_schedulers"] == given["lr_schedulers"]
    for key, value in given["state_dict"].items():
        assert torch.equal(searched["state_dict"][key], value), key
    assert not list((tmp_path / "searched").glob(".*.ckpt"))


def test_a_requeued_job_takes_the_newest_readable_checkpoint(run, monkeypatch):
    assert requeued_checkpoint(run) is None
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "training", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    assert requeued_checkpoint(run) is None  # the first start of a job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    last = run / "checkpoints" / "last.ckpt"
    assert requeued_checkpoint(run) == str(last)
    saved = torch.load(last, weights_only=True)
    for number, steps in ((1, 40), (2, 50)):
        torch.save(stamp({**saved, "global_step": steps}), run / f"hpc_ckpt_{number}.ckpt")
    assert requeued_checkpoint(run) == str(run / "hpc_ckpt_2.ckpt")
    os.truncate(run / "hpc_ckpt_2.ckpt", 1000)
    with pytest.warns(UserWarning, match=r"hpc_ckpt_2\.ckpt is damaged .* using another checkpoint"):
        assert requeued_checkpoint(run) == str(run / "hpc_ckpt_1.ckpt")


@pytest.mark.slow
def test_auto_begins_and_goes_on(tmp_path, config):
    command = ["fit", "--config", str(config), "--ckpt_path", "auto", "--trainer.max_steps"]
    for steps in ("2", "3"):  # the same command begins and goes on
        main([*command, steps])
        assert step(tmp_path / "run" / "checkpoints" / "last.ckpt") == int(steps)
    attempts = read_manifest(tmp_path / "run").attempts
    assert [attempt["resumed_from"] is None for attempt in attempts] == [True, False]
    with pytest.raises(FileNotFoundError, match=r"--ckpt_path auto: no such file; .* or auto to fit"):
        main(["validate", "--config", str(config), "--ckpt_path", "auto"])


def test_auto_takes_the_newest_that_can_be_read(run):
    assert newest_checkpoint(run / "none") is None
    last, best = (run / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    assert newest_checkpoint(run) == str(last)
    saved = torch.load(last, weights_only=True)
    torch.save(stamp({**saved, "global_step": 5}), run / "hpc_ckpt_1.ckpt")  # last.ckpt is of step 6
    torch.save(stamp({**saved, "global_step": 9}), best)
    assert newest_checkpoint(run) == str(last)
    os.truncate(last, 1000)
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged .* using another checkpoint"):
        assert newest_checkpoint(run) == str(run / "hpc_ckpt_1.ckpt")
    (run / "hpc_ckpt_1.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged"):
        assert newest_checkpoint(run) == str(best)
    torch.save(stamp({**saved, "global_step": 12}), run / "checkpoints" / "step_12.ckpt")
    weights = {"state_dict": saved["state_dict"], "global_step": 15}
    torch.save(weights, run / "checkpoints" / "weights.ckpt")  # save_weights_only
    with pytest.warns(UserWarning, match=r"weights\.ckpt holds no more than weights; using another"):
        assert newest_checkpoint(run) == str(run / "checkpoints" / "step_12.ckpt")
    (run / "checkpoints" / "step_12.ckpt").unlink()
    os.truncate(best, 1000)
    with pytest.raises(ValueError, match=r"run has no checkpoint to resume from: .*last\.ckpt is damaged.*best\.ckpt"):
        main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "auto"])


def test_a_data_module_without_options(tmp_path, monkeypatch):
    (tmp_path / "optionless.py").write_text(OPTIONLESS)
    monkeypatch.syspath_prepend(tmp_path)
    network = {"sizes": [[8, 8], [4, 4], [1, 1]], "generators": ["ar", "ar"], "widths": [16] * 3, "blocks": [1] * 3}
    network = {
        "class_path": "litscale.models.fractal.Fractal",
        "init_args": network | {"heads": [2] * 3, "codec": "binary"},
    }
    config = tmp_path / "config.yaml"
    model = {"class_path": "lit_models.LitFractal", "init_args": {"network": network}}
    trainer = {"max_steps": 1, "logger": False, "accelerator": "cpu", "default_root_dir": str(tmp_path / "run")}
    config.write_text(yaml.safe_dump({"trainer": trainer, "model": model}))
    main(["fit", "--config", str(config), "--data", "optionless.Optionless"])
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["data"] == {"class_path": "optionless.Optionless"}


def test_overwriting_removes_what_benchmarks_wrote_and_sharded_checkpoints(tmp_path):
    for name in ("bench_decode.csv", "bench_decode_unfinished.json", "bench_costs.md", "masks.png", "notes.txt"):
        (tmp_path / name).touch()
    sharded = tmp_path / "checkpoints" / "last.ckpt"  # a folder
    sharded.mkdir(parents=True)
    (sharded / ".metadata").touch()
    clear_run_folder(tmp_path)
    assert not sharded.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "notes.txt"]
