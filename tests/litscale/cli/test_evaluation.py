"""Evaluations: of which weights, into which folder, and how they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml

from litscale.cli.main import main
from litscale.storage.checkpoints import stamp

SLOW = '''
import time
from pathlib import Path
from lightning.pytorch import Callback


class Slow(Callback):
    """Takes its time in the middle of the first batch, once it has said so."""

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        Path("begun").touch()
        for _ in range(3000):
            time.sleep(0.01)

    on_validation_batch_start = on_predict_batch_start = on_test_batch_start
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where a trained run is kept for all tests."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(tmp_path, monkeypatch, config, trained):
    """A run of three steps in ``run``, by its relative path; what evaluates its last checkpoint."""
    monkeypatch.chdir(tmp_path)
    if not trained.exists():
        settings = yaml.safe_load(config.read_text())
        settings["trainer"] |= {"default_root_dir": "run", "max_steps": 3}
        config.write_text(yaml.safe_dump(settings))
        main(["fit", "--config", str(config)])
        shutil.copytree("run", trained)
    shutil.copytree(trained, "run", dirs_exist_ok=True)
    return ["--config", "run/config.yaml", "--ckpt_path", "run/checkpoints/last.ckpt"]


def tree(folder):
    """Path -> content of all files in a folder."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_an_evaluation_has_a_folder_of_its_own(run, capsys):
    before = tree("run")
    assert yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]["logger"]["init_args"]["save_dir"] == "."
    elsewhere = ["--trainer.default_root_dir", "evaluations/first"]
    main(["test", *run, *elsewhere])
    writer = "--trainer.callbacks+=callbacks.PredictionWriter"
    main(["predict", *run, *elsewhere, writer, "--data.predict.num_samples", "1"])
    assert tree("run") == before
    (scores,) = Path("evaluations/first").glob("scores_test_*.json")
    (folder,) = Path("evaluations/first/predictions").iterdir()
    assert list(Path("evaluations/first/logs").rglob("metrics.csv"))
    assert str(scores) in capsys.readouterr().out
    found, checkpoint = json.loads(scores.read_text()), Path("run/checkpoints/last.ckpt")
    digest = sha256(checkpoint.read_bytes()).hexdigest()
    facts = {"checkpoint": str(checkpoint.resolve()), "step": 3, "sha256": digest, "weight_files": {}}
    assert {name: found[name] for name in facts} == facts
    assert found["settings"]["precision"] == "32-true"
    assert found["settings"]["model"]["class_path"] == "lit_models.LitFractal"
    assert found["scores"]["test/nats_per_step"] > 0
    record = json.loads((folder / "sample_00000.json").read_text())
    assert {name: record[name] for name in facts} == facts


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_is_evaluated(run):
    Path("file").touch()
    with pytest.raises(OSError, match=r"trainer.default_root_dir: cannot write there .*file/inside"):
        main(["test", *run, "--data.folder", "nowhere", "--trainer.default_root_dir", "file/inside"])


@pytest.mark.parametrize("command", ["test", "predict"])
def test_random_weights_are_evaluated_only_if_asked_for(tmp_path, monkeypatch, config, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=rf"litscale {command} was given no weights: .* \(or --model.official_check.*--untrained true"
    ):
        main([command, "--config", str(config)])
    main([command, "--config", str(config), "--untrained", "true"])
    if command != "predict":
        (scores,) = (tmp_path / "run").glob("scores_*.json")
        assert json.loads(scores.read_text())["checkpoint"] is None
        assert "untrained" in scores.name


def test_scores_are_printed_by_their_whole_names_unless_not_wanted(run, capsys):
    main(["validate", *run])
    scores = json.loads(next(Path("run").glob("scores_validate_*.json")).read_text())["scores"]
    out = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in out.splitlines() if "│" in line}
    assert lines == {name: f"{value:.5g}" for name, value in scores.items()}
    assert "Scores\n" in out
    main(["validate", *run, "--trainer.limit_val_batches", "1"])
    assert "Scores, 1 of the batches\n" in capsys.readouterr().out
    main(["validate", *run, "--verbose", "false"])
    assert "│" not in capsys.readouterr().out


def test_scores_that_are_not_finite_fail(run):
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    next(value for name, value in state["state_dict"].items() if "weight" in name).fill_(float("nan"))
    torch.save(stamp(state), "broken.ckpt")
    with pytest.raises(FloatingPointError, match=r"not finite: .*val/nats_per_step.* \(null in run/scores_.*json\)"):
        main(["validate", *run, "--ckpt_path", "broken.ckpt"])
    (scores,) = Path("run").glob("scores_validate_step_3_*.json")
    assert json.loads(scores.read_text())["scores"]["val/nats_per_step"] is None


def test_a_checkpoint_that_is_overwritten_while_it_is_read_is_noticed(run, monkeypatch):
    from litscale.cli import evaluation

    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    seen = evaluation.evaluated_weights

    def late(trainer, module):
        torch.save(stamp(state | {"global_step": 4}), "run/checkpoints/last.ckpt")
        return seen(trainer, module)

    monkeypatch.setattr(evaluation, "evaluated_weights", late)
    with pytest.raises(RuntimeError, match=r"last.ckpt was overwritten while it was read \(step 3, now 4\)"):
        main(["test", *run])


@pytest.mark.slow  # litscale bench ends the same way, which a default test sees
@pytest.mark.parametrize("command", ["predict", "validate", "test"])
def test_sigterm_ends_an_evaluation_at_once(run, command):
    Path("slow.py").write_text(SLOW)
    before = tree("run/checkpoints")
    words = [*run, "--trainer.callbacks+=slow.Slow", "--trainer.callbacks+=callbacks.PredictionWriter"]
    process = subprocess.Popen(
        [sys.executable, "-m", "litscale", command, *words], env=os.environ | {"PYTHONPATH": "."}
    )
    while not Path("begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143  # of thirty seconds that a batch takes
    assert tree("run/checkpoints") == before
    assert not list(Path("run").glob("scores_*"))
    assert not list(Path("run").glob("predictions/*"))  # hidden ones included
