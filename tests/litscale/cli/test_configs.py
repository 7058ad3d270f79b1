"""Every shipped config fits the real signatures, alone and in layers."""

import re
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from cli_runs import shipped

from litscale.cli.main import main
from litscale.models.fractal.guidance import final_logits

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
RUNNABLE = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if "default_root_dir" in (yaml.safe_load(path.read_text()).get("trainer") or {}) and path.stem != "music"
)
EXPERIMENTS = [
    path for path in RUNNABLE if path.stem == "demo" or (path.parent.name == "piano_roll" and path.stem[0] != "v")
]
ADDED = [*CONFIGS.glob("trainer/*.yaml"), *CONFIGS.glob("logger/*.yaml"), *CONFIGS.glob("*/fid*.yaml")]
ADDED += [
    CONFIGS / "music.yaml",
    CONFIGS / "callbacks" / "ema_short.yaml",
    *CONFIGS.glob("*/tokens.yaml"),
    *(set(CONFIGS.glob("sdvar/*.yaml")) - set(RUNNABLE)),
]
TRAINERS = [path for path in sorted(CONFIGS.glob("trainer/*.yaml")) if "layers" not in yaml.safe_load(path.read_text())]
LOGGERS = sorted(CONFIGS.glob("logger/*.yaml"))
# Each layer once by default, with the others by turns; all pairs are slow.
LAYERS = [
    pytest.param(trainer, logger, marks=() if i % len(LOGGERS) == j else pytest.mark.slow)
    for (i, trainer), (j, logger) in product(enumerate(TRAINERS), enumerate(LOGGERS))
]
WIDTHS = {
    "demo": [256, 128, 64, 64],
    "bach": [128, 96, 64],
    "jsb": [256, 128, 64, 64],
    "pop909": [256, 128, 64, 64],
    "musical": [384, 256, 256, 128, 96, 64],
    "styles": [256, 128, 64, 64],
    "mar_distilled": [128, 64, 32, 32],
}


def includes(config, stated, folder=CONFIGS):
    """Whether all that a file states is there; classes have more options than a file sets.

    Args:
        config: what a config comes to.
        stated: what the file says.
        folder: of the file, which names of others in it are relative to.
    """
    if isinstance(stated, str) and stated.endswith(".yaml"):
        path = folder / stated
        return includes(config, yaml.safe_load(path.read_text()), path.parent)
    if not isinstance(stated, dict):
        return config == stated
    if "callbacks+" in stated:
        names = [callback["class_path"] for callback in config["callbacks"]]
        added = [callback["class_path"] for callback in stated["callbacks+"]]
        if not any(names[i : i + len(added)] == added for i in range(len(names))):
            return False
    keys = stated.keys() - {"layers", "callbacks+", "callbacks"}
    return all(includes(config[key], stated[key], folder) for key in keys)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_experiment_is_short_and_what_it_states_holds(path):
    assert len(path.read_text().splitlines()) < 30
    assert includes(shipped("fit", path), yaml.safe_load(path.read_text()), path.parent)


def test_every_config_is_run_named_or_added():
    named = set(re.findall(r"[\w/]+\.yaml", " ".join(path.read_text() for path in CONFIGS.rglob("*.yaml"))))
    names = {name.rsplit("/")[-1] for name in named}
    assert {path.name for path in set(CONFIGS.rglob("*.yaml")) - {*RUNNABLE, *ADDED}} <= names


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "command", ["fit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("validate", "test", "predict"))]
)
def test_experiments_parse(path, command):
    config = shipped(command, path)
    network = config["model"]["init_args"]["network"]["init_args"]
    usual = [512, 256, 128, 64] if path.stem.endswith("_base") else [256, 128, 64, 32]
    assert network["widths"] == WIDTHS.get(path.stem, usual)
    assert config["weights_only"] is True
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_data_and_network_agree(path, tmp_path):
    config = shipped("fit", path)
    network, data = config["model"]["init_args"]["network"]["init_args"], config["data"]["init_args"]
    low, high = data["pitch_range"] or (0, 127)
    assert network["sizes"][0] == [high - low + 1, data["window"]]
    assert network["velocity_bins"] == data["velocity_bins"]
    assert network["codec"] == data["encoding"]


def test_a_short_training_is_not_drawn_as_silence():
    options = shipped("fit", CONFIGS / "quick.yaml")["model"]["init_args"]["generation"]
    # in POP909 1.4 notes begin in a step of 48 rows, and after a short training a row without context has about 1 %
    logits = torch.tensor([0.99, 0.01]).log()
    drawn = final_logits(logits, options["temperature"], None, options["filter_threshold"], options["min_p"])
    assert drawn.isfinite().all()


@pytest.mark.parametrize(("trainer", "logger"), LAYERS, ids=lambda path: path.stem)
def test_layers_win_over_experiments(trainer, logger):
    layers = (trainer, logger)
    config = shipped("fit", CONFIGS / "piano_roll" / "mar.yaml", *layers)
    for path in layers:
        for key, value in yaml.safe_load(path.read_text())["trainer"].items():
            if key != "logger":
                assert includes(config["trainer"][key], value)
    assert len(config["trainer"]["callbacks"]) == 8
    assert config["trainer"]["logger"]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_comes_from_docstrings(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert "--config" in out
    assert "--model.help LitFractal" in " ".join(out.split())
    lines = out.splitlines()
    assert ("--trainer.max_epochs" in out) == (command == "fit")
    assert ("resume" in out) == (command == "fit")
    assert len(lines) <= 72  # three screens
    assert max(map(len, lines)) <= 80
    with pytest.raises(SystemExit):
        main([command, "--help_all"])
    out = capsys.readouterr().out
    assert "--trainer.detect_anomaly {true,false}" in out
    assert max(map(len, out.splitlines())) <= 80
    with pytest.raises(SystemExit):
        main([command, "--model.help", "lit_models.LitFractal"])
    out = capsys.readouterr().out
    assert out.startswith("Help for --model.help=lit_models.LitFractal\n")
    assert max(map(len, out.splitlines())) <= 80
    assert "--model.generation.iterations+" not in out
    out = " ".join(out.split())
    assert "Number of passes over which the likelihood of each canvas is averaged in evaluation" in out
    assert "divides the logits; below 1 is safer" in out
    with pytest.raises(SystemExit):
        main([command, "--data.help", "datamodules.PianoRollDataModule"])
    out = capsys.readouterr().out
    assert "--data.pitch_range" in out
    assert max(map(len, out.splitlines())) <= 80
    with pytest.raises(SystemExit):
        main([command, "--model.help", "LitFractal", "--model.network.help", "Fractal"])
    out = capsys.readouterr().out
    assert "--model.network.velocity_bins" in out
    assert max(map(len, out.splitlines())) <= 80


def test_an_unknown_name_is_one_clear_error(capsys):
    demo = str(CONFIGS / "demo.yaml")
    with pytest.raises(SystemExit):
        main(["fit", "--config", demo, "--data.encoding", "midi"])
    assert "midi" in capsys.readouterr().err
