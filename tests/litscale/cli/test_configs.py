"""Every shipped config fits the real signatures, alone and in layers."""

from itertools import product
from pathlib import Path

import pytest
import yaml
from cli_runs import printed

from litscale.cli.main import main

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
EXPERIMENTS = sorted(
    [CONFIGS / "demo.yaml", *(set(CONFIGS.glob("piano_roll/*.yaml")) - set(CONFIGS.glob("*/v*.yaml")))]
)
LAYERS = sorted(product(CONFIGS.glob("trainer/*.yaml"), CONFIGS.glob("logger/*.yaml")))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_experiments_parse(path, command):
    config = printed(command, path)
    given = yaml.safe_load(path.read_text())
    network = config["model"]["init_args"]["network"]["init_args"]
    assert network["widths"] == given["model"]["init_args"]["network"]["init_args"]["widths"]
    assert config["weights_only"] is True
    if path.stem != "demo":
        assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_data_and_network_agree(path, tmp_path):
    config = printed("fit", path)
    network, data = config["model"]["init_args"]["network"]["init_args"], config["data"]["init_args"]
    low, high = data["pitch_range"] or (0, 127)
    assert network["sizes"][0] == [high - low + 1, data["window"]]
    assert network["velocity_bins"] == data["velocity_bins"]
    assert network["codec"] == data["encoding"]


def includes(found, wanted):
    """Whether all that is wanted is there; classes have more options than a layer sets."""
    if isinstance(wanted, dict):
        return all(includes(found[key], value) for key, value in wanted.items())
    return found == wanted


@pytest.mark.parametrize("layers", LAYERS, ids=lambda paths: "-".join(path.stem for path in paths))
def test_layers_win_over_experiments(layers):
    config = printed("fit", CONFIGS / "piano_roll" / "mar.yaml", *layers)
    for path in layers:
        for key, value in yaml.safe_load(path.read_text())["trainer"].items():
            if key != "logger":
                assert includes(config["trainer"][key], value)
    assert len(config["trainer"]["callbacks"]) == 7
    assert config["trainer"]["logger"]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_comes_from_docstrings(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--config" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([command, "--model.help", "lit_models.LitFractal"])
    out = " ".join(capsys.readouterr().out.split())
    assert "passes averaged for the likelihood" in out
    assert "divides the logits; below 1 is safer" in out
    with pytest.raises(SystemExit):
        main([command, "--data.help", "datamodules.PianoRollDataModule"])
    assert "--data.pitch_range" in capsys.readouterr().out


def test_an_unknown_name_is_one_clear_error(capsys):
    demo = str(CONFIGS / "demo.yaml")
    with pytest.raises(SystemExit):
        main(["fit", "--config", demo, "--data.encoding", "midi"])
    assert "midi" in capsys.readouterr().err
