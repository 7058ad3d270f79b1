"""VAR's configs fit the signatures, agree with each other and with the presets; digits run from images to samples."""

from pathlib import Path

import pytest
import yaml
from cli_runs import shipped

from litscale.cli.main import main
from litscale.models.var import PRESETS, VAR, VQVAE

CONFIGS = Path(__file__).parents[3] / "configs"
FOLDERS = ("digits", "fashion_mnist", "imagenet", "piano_roll")
TOKENIZERS = sorted(path for folder in FOLDERS for path in CONFIGS.glob(f"{folder}/vqvae*.yaml"))
TRANSFORMERS = sorted(path for folder in FOLDERS for path in CONFIGS.glob(f"{folder}/var*.yaml"))


def network_of(config):
    return config["model"]["init_args"]["network"]["init_args"]


def name_of(path):
    return f"{path.parent.name}-{path.stem}"


def test_all_are_here():
    fashion = [f"fashion_mnist-{name}" for name in ("vqvae", "vqvae_ten")]
    assert [name_of(path) for path in TOKENIZERS] == [
        "digits-vqvae",
        *fashion,
        "imagenet-vqvae_256",
        "piano_roll-vqvae",
    ]
    fashion = [f"fashion_mnist-var_{name}" for name in ("draft", "draft_ten", "refiner", "target", "target_ten")]
    names = ["digits-var_draft", "digits-var_target", *fashion]
    names += [f"imagenet-var_d{depth}" for depth in (16, 20, 24, 30, 36)]
    assert [name_of(path) for path in TRANSFORMERS] == [*names, "piano_roll-var"]


@pytest.mark.parametrize("path", [*TOKENIZERS, *TRANSFORMERS], ids=name_of)
def test_configs_parse_and_the_data_fits(path):
    config = shipped("fit", path)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    network = network_of(config)
    tokenizer = network["vqvae"]["init_args"] if "vqvae" in network else network
    side = tokenizer["patch_nums"][-1] * 2 ** (len(tokenizer["multipliers"]) - 1)
    if path.parent.name == "piano_roll":
        low, high = data["pitch_range"]
        assert side == high - low + 1 == data["window"]
        assert (model["codec"], model["velocity_bins"]) == (data["encoding"], data["velocity_bins"])
    else:
        assert side == data["size"]
    assert config["weights_only"] is True
    folder = {"digits": "digits_", "fashion_mnist": "fashion/"}.get(path.parent.name, "")
    assert config["trainer"]["default_root_dir"] == f"runs/{folder}{path.stem}"


@pytest.mark.parametrize("path", TRANSFORMERS, ids=name_of)
def test_a_transformer_has_the_tokenizer_of_its_folder(path):
    if path.stem == "var_d36":
        return  # of the published tokenizer, at 512 pixels
    config = shipped("fit", path)
    ten = path.stem.endswith("_ten")
    (tokenizer,) = (entry for entry in TOKENIZERS if entry.parent == path.parent and entry.stem.endswith("_ten") == ten)
    given, trained = network_of(config)["vqvae"]["init_args"], network_of(shipped("fit", tokenizer))
    differing = {name for name, value in given.items() if trained[name] != value}
    assert differing <= {"scale_dropout"}
    run = shipped("fit", tokenizer)["trainer"]["default_root_dir"]
    assert config["model"]["init_args"]["tokenizer_checkpoint"] == f"{run}/checkpoints/last.ckpt"


@pytest.mark.parametrize("depth", [16, 20, 24, 30, 36])
def test_recipes_are_the_presets(depth):
    network = network_of(shipped("fit", CONFIGS / "imagenet" / f"var_d{depth}.yaml"))
    preset = PRESETS[f"var_d{depth}_512" if depth == 36 else f"var_d{depth}"]
    assert network["depth"] == network["heads"] == preset["depth"]
    assert network["width"] == 64 * depth
    assert network["drop_path"] == pytest.approx(preset["drop_path_rate"], abs=1e-4)
    assert network["shared_aln"] == preset.get("shared_aln", False)
    assert tuple(network["vqvae"]["init_args"]["patch_nums"]) == preset["patch_nums"]


def test_the_draft_has_a_quarter_of_the_targets_parameters_at_most():
    counts = {}
    for kind in ("target", "draft"):
        network = network_of(shipped("fit", CONFIGS / "digits" / f"var_{kind}.yaml"))
        tokenizer = VQVAE(**network.pop("vqvae")["init_args"])
        counts[kind] = sum(p.numel() for p in VAR(tokenizer, **network).parameters())
    assert counts["draft"] <= counts["target"] / 4


@pytest.mark.slow
def test_digits_from_images_to_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--trainer.enable_progress_bar", "false"]
    short = [*quick, "--trainer.max_steps", "2", "--trainer.limit_val_batches", "1"]
    digits = CONFIGS / "digits"
    main(["fit", "--config", str(digits / "vqvae.yaml"), *short])
    tokenizer = ["--config", "runs/digits_vqvae/config.yaml"]
    checkpoint = tmp_path / "runs/digits_vqvae/checkpoints/last.ckpt"
    trained = ["--ckpt_path", str(checkpoint)]
    main(["test", *tokenizer, *trained, *quick, "--trainer.limit_test_batches", "1"])
    assert "test/psnr" in capsys.readouterr().out
    one = ["--data.epochs", "1"]
    main(["predict", *tokenizer, "--config", str(digits / "tokens.yaml"), *trained, *quick, *one])
    main(["fit", "--config", str(digits / "var_target.yaml"), *short])
    draft = ["--config", str(digits / "var_draft.yaml"), *short]
    cache = {"class_path": "datamodules.TokenDataModule", "init_args": {"folder": "runs/digits_vqvae/tokens"}}
    Path("cache.yaml").write_text(yaml.safe_dump({"data": cache}))
    main(["fit", *draft, "--config", "cache.yaml"])
    checkpoint.unlink()
    own = ["--config", "runs/digits_var_target/config.yaml"]
    own += ["--ckpt_path", str(tmp_path / "runs/digits_var_target/checkpoints/last.ckpt")]
    capsys.readouterr()
    main(["predict", *own, *quick, "--data.predict.num_samples", "3"])
    (predictions,) = Path("runs/digits_var_target/predictions").iterdir()
    written = {path.name for path in predictions.iterdir()}
    assert {f"sample_{i:05d}.{end}" for i in range(3) for end in ("png", "gif", "json")} <= written
