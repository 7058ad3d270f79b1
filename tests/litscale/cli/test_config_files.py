"""Configs are laid over the layers that they name, and found in the working directory or the package."""

from pathlib import Path

import pytest
import yaml
from cli_runs import printed

from litscale.cli.config_files import PACKAGED, find_config, with_layers
from litscale.cli.main import main


def write(folder, **contents):
    """Write configs by their names."""
    for name, content in contents.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))


def model(**network):
    """A config's part of a small network's options."""
    return {"model": {"init_args": {"network": {"init_args": network}}}}


def test_later_layers_win_and_the_config_over_all(tmp_path, monkeypatch, config):
    """Also: paths are relative to each file, callbacks are added, and what is printed stands by itself."""
    monkeypatch.chdir(tmp_path)
    first = {"layers": ["../config.yaml"], "trainer": {"max_steps": 30}} | model(velocity_bins=2, widths=[8, 8, 8, 8])
    second = model(velocity_bins=3) | {"trainer": {"callbacks+": [{"class_path": "callbacks.PredictionWriter"}]}}
    own = {"layers": ["parts/first.yaml", "parts/second.yaml"]} | model(heads=[4, 4, 4, 4])
    for name, content in (("parts/first", first), ("parts/second", second), ("mine", own)):
        write(tmp_path, **{name: content})
    whole, base = printed("fit", "mine.yaml"), printed("fit", "config.yaml")
    network = whole["model"]["init_args"]["network"]["init_args"]
    assert (network["velocity_bins"], network["widths"], network["heads"]) == (3, [8] * 4, [4] * 4)
    assert network["sizes"] == [[24, 16], [24, 1], [12, 1], [1, 1]]
    assert whole["trainer"]["max_steps"] == 30
    names = [callback["class_path"] for callback in whole["trainer"]["callbacks"]]
    assert names == [each["class_path"] for each in base["trainer"]["callbacks"]] + ["callbacks.PredictionWriter"]
    assert "layers" not in whole
    write(tmp_path, printed=whole)
    assert printed("fit", "printed.yaml") == whole
    layers = [Path(path).resolve().relative_to(tmp_path) for path in with_layers("mine.yaml")]
    assert list(map(str, layers)) == ["config.yaml", "parts/first.yaml", "parts/second.yaml", "mine.yaml"]


def test_layers_are_the_same_as_configs_in_turn(tmp_path, config):
    write(tmp_path, a=model(heads=[1, 1, 1, 1]), b=model(heads=[4, 4, 4, 4]))
    write(tmp_path, mine={"layers": ["config.yaml", "a.yaml", "b.yaml"]})
    paths = [tmp_path / name for name in ("config.yaml", "a.yaml", "b.yaml")]
    assert printed("fit", tmp_path / "mine.yaml") == printed("fit", *paths)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("other.yaml", "layers must be a list of files, not 'other.yaml'"),
        (["nowhere.yaml"], "its layer nowhere.yaml is neither there, relative to the config, nor one of litscale"),
        (["other.yaml"], "names this config as a layer itself"),
    ],
)
def test_wrong_layers_are_one_clear_error(tmp_path, capsys, layers, message):
    write(tmp_path, mine={"layers": layers}, other={"layers": ["mine.yaml"]})
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / "mine.yaml")])
    error = " ".join(capsys.readouterr().err.split("error: ")[1].split())
    assert message in error
    assert ".yaml: " in error


def test_the_working_directory_wins_over_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(PACKAGED / "piano_roll" / "mar.yaml")
    assert find_config("piano_roll/mar.yaml") == find_config("configs/piano_roll/mar.yaml") == packaged
    write(tmp_path, **{"piano_roll/mar": {"seed_everything": 7}})
    assert find_config("piano_roll/mar.yaml") == "piano_roll/mar.yaml"
    assert find_config("configs/piano_roll/mar.yaml") == packaged
    assert find_config("{seed_everything: 7}") == "{seed_everything: 7}"


def test_packaged_configs_are_those_of_the_repository():
    assert PACKAGED.resolve() == Path(__file__).parents[3] / "configs"


def test_an_unknown_config_names_similar_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--config", "fractal_marr.yaml"])
    error = " ".join(capsys.readouterr().err.split("error: ")[1].split())
    assert "--config fractal_marr.yaml: there is no such file" in error
    assert "digits/fractal_mar.yaml" in error
    assert "vqvae" not in error


def test_a_layer_may_be_one_of_the_package(tmp_path):
    write(tmp_path, mine={"layers": ["trainer/cpu.yaml"]})
    path = str(tmp_path / "mine.yaml")
    assert with_layers(path) == [str(PACKAGED / "trainer/cpu.yaml"), path]


@pytest.mark.parametrize("content", [b"layers: [a.yaml\n", b"\xff\xfe"])
def test_a_damaged_config_is_named(tmp_path, content):
    path = tmp_path / "damaged.yaml"
    path.write_bytes(content)
    with pytest.raises(TypeError, match=r"damaged\.yaml is not a YAML file"):
        with_layers(str(path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[1]", "--config [1]: there is no such file, and as text it names no option, as '{trainer.max_steps: 10}'"),
        ("5", "--config 5: there is no such file, and as text it names no option"),
        ("demo", "--config demo: there is no such file, and as text it names no option"),
        ("{a: [b", "--config {a: [b is neither a file nor YAML: "),
        ("list.yaml", "list.yaml holds no options, as '{trainer.max_steps: 10}' does"),
    ],
)
def test_what_holds_no_options_is_one_line(given, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[1, 2]")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "demo.yaml", "--config", given])
    error = capsys.readouterr().err
    assert f"litscale fit: error: {message}" in error
    assert error.count("\n") == 1
