"""Arguments as W&B's sweeps write them are options."""

import json

import pytest
import yaml
from cli_runs import printed

from litscale.cli.words import as_options, configs_first, given_configs

GIVEN = {
    "model.optimization.lr": 1e-05,
    "model.network.proj_dropout": 0.25,
    "model.network.widths": [32, 16, 8],
    "model.network.codec": "gray",
    "model.optimization.weight_decay_end": None,
    "trainer.deterministic": True,
    "trainer.enable_model_summary": False,
    "trainer.limit_train_batches": 3,
    "seed_everything": 7,
}


@pytest.mark.parametrize("form", ["args", "args_no_equals", "args_no_hyphens", "args_json"])
def test_arguments_of_wandb_mean_what_a_config_does(form, tmp_path, capsys):
    """The expected config has the same values in YAML."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    from litscale.cli.main import main

    words = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in GIVEN.items()}})[form]
    words = ["--config", *words] if form == "args_json" else words
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "digits/fractal_ar.yaml", *words, "--print_config"])
    assert stop.value.code in (0, None)
    came_to = yaml.safe_load(capsys.readouterr().out)
    network = {name.split(".")[-1]: value for name, value in GIVEN.items() if "network" in name}
    optimization = {name.split(".")[-1]: value for name, value in GIVEN.items() if "optimization" in name}
    trainer = {name.split(".")[-1]: value for name, value in GIVEN.items() if "trainer" in name}
    model = {"init_args": {"network": {"init_args": network}, "optimization": optimization}}
    layer = tmp_path / "layer.yaml"
    layer.write_text(json.dumps({"seed_everything": 7, "trainer": trainer, "model": model}))
    assert came_to == printed("fit", "digits/fractal_ar.yaml", layer)
    assert came_to["model"]["init_args"]["optimization"]["lr"] == 1e-05


def test_values_of_options_stay():
    words = ["fit", "--config", "a=b.yaml", "c.d=1", "--e=2", "f+=g", "--h", "i=j", "k l=m", "--n=None", "--o", "None"]
    expected = [*words[:3], "--c.d=1", "--e=2", "--f+=g", "--h", "i=j", "k l=m", "--n=null", "--o", "null"]
    assert as_options(words) == expected


def test_configs_come_before_options():
    words = ["fit", "--a", "1", "-c", "x.yaml", "--b=2", "--print_config", "--config=y.yaml", "rest", "--d", "-1"]
    expected = ["fit", "-c", "x.yaml", "--config=y.yaml", "--a", "1", "--b=2", "--print_config", "rest", "--d", "-1"]
    assert configs_first(words) == expected
    assert given_configs(expected) == ["x.yaml", "y.yaml"]
    assert configs_first(["--config", "x.yaml", "fit"]) == ["--config", "x.yaml", "fit"]
    assert configs_first([]) == []


def test_an_option_overrides_a_config_that_follows_it(capsys):
    from litscale.cli.main import main

    words = ["fit", "--trainer.default_root_dir", "mine", "--config", "demo.yaml", "--trainer.max_steps=7"]
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert (trainer["default_root_dir"], trainer["max_steps"], trainer["check_val_every_n_epoch"]) == ("mine", 7, 3)
