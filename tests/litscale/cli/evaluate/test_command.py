"""The command line, on a run that was trained."""

import csv
import json
import re
import socket
from pathlib import Path

import pytest
import torch
import yaml
from cli_runs import forked, status_of

from litscale.cli.main import main
from litscale.storage.checkpoints import stamp

NAME = "val/nats_per_step"


def table(folder):
    """Step -> its row of ``scores.csv``."""
    with (Path(folder) / "scores.csv").open() as file:
        return {int(row["step"]): row for row in csv.DictReader(file)}


def test_all_checkpoints_of_a_run_are_scored_as_validate_scores_them(run, capsys):
    main(["validate", "--config", "run/config.yaml", "--ckpt_path", "run/checkpoints/step_6.ckpt"])
    (alone,) = run.glob("scores_validate_step_6_*.json")
    capsys.readouterr()
    main(["evaluate", "run"])
    assert capsys.readouterr().out.count(NAME) == 3  # once for each checkpoint
    found = table("run/evaluations/validate")
    assert list(found) == [3, 6, 9]
    assert float(found[6][NAME]) == json.loads(alone.read_text())["scores"][NAME]
    assert [row["checkpoint"] for row in found.values()] == ["step_3.ckpt", "step_6.ckpt", "step_9.ckpt"]
    best = json.loads(Path("run/evaluations/validate/best_by_val_nats_per_step.json").read_text())
    assert best["step"] == min(found, key=lambda step: float(found[step][NAME]))
    assert best["value"] == float(found[best["step"]][NAME])
    assert best["mode"] == "min"
    assert Path(best["checkpoint"]) == Path(f"run/checkpoints/step_{best['step']}.ckpt").resolve()
    # nothing is left of the snapshots, the training's own log is as it was, and the scores name the file in the run
    assert not list(run.glob("evaluations/**/*.ckpt"))
    (scores,) = Path("run/evaluations/validate/step_6").glob("scores_validate_step_6_*.json")
    assert json.loads(scores.read_text())["checkpoint"] == str(Path("run/checkpoints/step_6.ckpt").resolve())
    (log,) = run.glob("logs/version_*/evaluation_validate.csv")
    logged = {int(row["step"]): row for row in csv.DictReader(log.open())}
    assert {step: row[f"evaluation/validate/{NAME}"] for step, row in logged.items()} == {
        step: row[NAME] for step, row in found.items()
    }

    # once more: nothing is done again
    before = (Path("run/evaluations/validate/step_6") / "evaluated.json").stat().st_mtime_ns
    capsys.readouterr()
    main(["evaluate", "run", "--watch", "--patience", "0", "--poll", "0.01"])
    assert (Path("run/evaluations/validate/step_6") / "evaluated.json").stat().st_mtime_ns == before
    assert "Step 6" not in capsys.readouterr().out


def test_callbacks_of_a_layer_and_a_stage_and_a_name(run):
    layer = {"trainer": {"callbacks+": [{"class_path": "callbacks.MusicEvaluation", "init_args": {"num_samples": 2}}]}}
    Path("music.yaml").write_text(yaml.safe_dump(layer))
    main(["evaluate", "run", "--name", "music", "--stage", "test", "--best", "--config", "music.yaml"])
    (step,) = found = table("run/evaluations/music")
    assert float(found[step]["test/nats_per_step"]) > 0
    assert any(name.startswith("music/") for name in found[step])
    report = Path(f"run/evaluations/music/step_{step}/music_test.md").read_text()
    assert "run/checkpoints/best.ckpt" in report


def test_bad_input_is_one_error(run, capsys):
    for words, message in {
        (): "give the folder of a run first",
        ("nowhere",): "nowhere/config.yaml: no such file; give the folder of a run",
        ("run", "--name", "a/b"): "--name a/b: give a name for a folder",
        ("run", "--name", ""): "--name : give a name for a folder",
        ("run", "--ckpt_path", "last"): "--ckpt_path: the checkpoints are those of the run",
        ("run", "--trainer.default_root_dir=a"): "--trainer.default_root_dir: the results go to RUN/evaluations/NAME",
        ("run", "--monitor", "x:up"): "x:up: give NAME, NAME:min or NAME:max",
        ("run", "--checkpoints", "../x"): "--checkpoints ../x: give names of files in checkpoints/",
        ("run", "--every", "0"): "--every must be at least 1, not 0",
        ("run", "--nonsense", "1"): "litscale evaluate: error: --nonsense: there is no such option",
        ("run", "--model.nll_passes", "x"): "litscale evaluate: error: --model.nll_passes x: expected a whole number",
    }.items():
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", *words])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(
        FileNotFoundError, match=r"has no checkpoint that --checkpoints 'x\*' selects; there are best.ckpt"
    ):
        main(["evaluate", "run", "--checkpoints", "x*"])
    main(["evaluate", "run", "--last", "--monitor", "val/x", "--monitor", NAME])
    said = capsys.readouterr().out
    assert "--monitor val/x: there is no such score, but " in said
    assert f"--monitor {NAME}: " not in said
    with pytest.raises(
        ValueError, match=r"other settings: model.init_args.nll_passes was 1 and is 2. .* another --name"
    ):
        main(["evaluate", "run", "--last", "--model.nll_passes", "2"])


def test_checkpoints_of_another_architecture_are_one_error(run):
    wider = ["--model.network.init_args.widths", "[24,16,16,16]", "--name", "wider"]
    with pytest.raises(ValueError, match="the checkpoint has another architecture") as raised:
        main(["evaluate", "run", "--last", *wider])
    assert any("checkpoints/last.ckpt, step 9, with the config of run" in note for note in raised.value.__notes__)
    assert not list(Path("run/evaluations/wider").glob("step_*/evaluated.json"))


def test_scores_that_are_not_finite_are_kept_as_none_and_fail_in_the_end(run, capsys):
    path = run / "checkpoints" / "step_3.ckpt"
    state = torch.load(path, weights_only=True)
    next(value for name, value in state["state_dict"].items() if "weight" in name).fill_(float("nan"))
    path.unlink()
    torch.save(stamp(state), path)
    with pytest.raises(FloatingPointError, match="some scores are not finite, at steps 3"):
        main(["evaluate", "run", "--checkpoints", "step_[36].ckpt"])
    found = table("run/evaluations/validate")
    assert [bool(row[NAME]) for row in found.values()] == [False, True]
    assert "Step 3: not finite: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--poll", "-1"], "argument --poll: -1: give a number that is not negative"),
        (["--poll", "nan"], "argument --poll: nan: give a number"),
        (["--patience", "inf"], "argument --patience: inf: give a number"),
        (["--patience", "long"], "argument --patience: invalid .* value: 'long'"),
        (["--monitor", ":max"], "argument --monitor: :max: give NAME, NAME:min or NAME:max"),
    ],
)
def test_impossible_options_are_refused(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path), *words])
    assert re.search(message, capsys.readouterr().err)


def of_two_processes(*words):
    """The statuses of the two processes of a command line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ddp = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]
    ranks = [forked(*words, *ddp, LOCAL_RANK=str(rank), MASTER_PORT=str(port)) for rank in (0, 1)]
    return [status_of(rank) for rank in ranks]


@pytest.mark.slow
def test_two_processes_evaluate_together(run):
    assert of_two_processes("evaluate", "run", "--watch", "--patience", 0, "--checkpoints", "step_[69].ckpt") == [0, 0]
    found = table("run/evaluations/validate")
    assert list(found) == [6, 9]
    main(["evaluate", "run", "--name", "alone", "--checkpoints", "step_[69].ckpt"])
    alone = table("run/evaluations/alone")
    assert [float(row[NAME]) for row in found.values()] == pytest.approx([float(row[NAME]) for row in alone.values()])


@pytest.mark.slow
def test_what_goes_wrong_in_the_first_process_ends_the_other_too(run):
    assert of_two_processes("evaluate", "run", "--checkpoints", "x*") == [1, 1]
