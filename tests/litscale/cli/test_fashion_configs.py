"""The configs of Fashion-MNIST, from pictures to a pair, on a few pictures of a folder that the environment names."""

import json
import re
from pathlib import Path

import pytest
import yaml
from cli_runs import shipped
from idx_files import write_idx

from litscale.cli.main import main
from litscale.models.var import VAR, VQVAE

CONFIGS = Path(__file__).parents[3] / "configs"
FASHION = CONFIGS / "fashion_mnist"


def parameters(name):
    """Number of parameters of a transformer, without its tokenizer."""
    network = shipped("fit", FASHION / f"{name}.yaml")["model"]["init_args"]["network"]["init_args"]
    return sum(p.numel() for p in VAR(**network | {"vqvae": VQVAE(**network["vqvae"]["init_args"])}).parameters())


def test_the_target_has_eight_times_the_parameters_of_the_draft():
    assert parameters("var_target") > 8 * parameters("var_draft")


def test_scales_and_vocabulary():
    eight, ten = (
        shipped("fit", FASHION / f"{name}.yaml")["model"]["init_args"]["network"]["init_args"]
        for name in ("vqvae", "vqvae_ten")
    )
    assert eight["patch_nums"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ten["patch_nums"] == [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
    assert min(eight["vocab"], ten["vocab"]) >= 256


def test_the_demo_names_configs_that_there_are():
    demo = (CONFIGS.parent / "Makefile").read_text().partition("demo-fashion: $(READY)")[2].partition("\n\n")[0]
    names = re.findall(r"call fashion,(\w+),", demo)
    assert names == ["vqvae", "var_target", "var_draft"]
    assert all((FASHION / f"{name}.yaml").is_file() for name in names)


def test_averages_of_the_demo_are_far_from_the_first_weights():
    text = (CONFIGS.parent / "Makefile").read_text().replace("\\\n", "")
    layers = re.findall(r"--config (\S+)", re.search(r"^SHORT := (.*)$", text, re.MULTILINE)[1])
    config = FASHION / "var_target.yaml"
    own, demo = (
        shipped("fit", config, *given)["trainer"]["callbacks"]
        for given in ((), [CONFIGS.parent / layer for layer in layers])
    )
    decay = demo[0]["init_args"].pop("decay")
    assert own[0]["init_args"].pop("decay") > decay
    assert demo == own
    steps = [int(count) for count in re.findall(r"call fashion,var_\w+,(\d+)", text)]
    assert len(steps) == 2
    assert decay ** min(steps) < 0.05


@pytest.mark.slow
def test_from_pictures_to_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASHION_MNIST", str(write_idx(tmp_path / "pictures")))
    monkeypatch.setenv("LITSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    quick = ["--trainer.enable_progress_bar", "false", "--trainer.max_steps", "2", "--data.batch_size", "20"]
    # 1. the tokenizer, and the tokens of all pictures
    main(["fit", "--config", str(FASHION / "vqvae.yaml"), *quick])
    run = ["--config", "runs/fashion/vqvae/config.yaml", "--ckpt_path", "last"]
    main(["test", *run, "--trainer.enable_progress_bar", "false"])
    out = capsys.readouterr().out
    assert all(name in out for name in ("test/rfid", "test/psnr", "test/usage/scale_7"))
    main(["predict", run[0], run[1], "--config", str(FASHION / "tokens.yaml"), *run[2:]])
    index = json.loads((tmp_path / "runs/fashion/vqvae/tokens/index.json").read_text())
    assert (index["num_classes"], index["shards"]) == (10, {"train": 1, "val": 1, "test": 1})
    # 2. a transformer on the tokens
    small = ["--model.network.depth", "1", "--model.network.width", "16", "--model.network.heads", "2"]
    tokens = ["--data", "datamodules.TokenDataModule", "--data.folder", "runs/fashion/vqvae/tokens"]
    source = ["--data.source", "datamodules.FashionMNISTDataModule", "--data.source.size", "32"]
    main(["fit", "--config", str(FASHION / "var_draft.yaml"), *tokens, *source, *quick, *small])
    # 3. its test on the pictures, and samples with names
    run = ["--config", "runs/fashion/var_draft/config.yaml", "--ckpt_path", "last"]
    pictures = tmp_path / "pictures.yaml"
    pictures.write_text(yaml.safe_dump({"data": shipped("fit", FASHION / "var_draft.yaml")["data"]}))
    few = ["--trainer.enable_progress_bar", "false"]
    callbacks = yaml.safe_load((tmp_path / "runs/fashion/var_draft/config.yaml").read_text())["trainer"]["callbacks"]
    for callback in callbacks:
        if callback["class_path"].endswith("GenerationQuality"):
            callback["init_args"] |= {"num_samples": 20, "batch_size": 10}
    pictures.write_text(pictures.read_text() + yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    main(["test", *run[:2], "--config", str(pictures), *run[2:], *few])
    capsys.readouterr()
    found = json.loads((tmp_path / "runs/fashion/var_draft/quality_test.json").read_text())
    assert found["features"] == "FashionFeatures"
    assert list(found["class_accuracy"])[:2] == ["T-shirt/top", "trouser"]
    main(["predict", *run, "--data.source.predict.num_samples", "3", *few])
    (record, *_) = sorted((tmp_path / "runs/fashion/var_draft/predictions").glob("*/sample_00000.json"))
    assert json.loads(record.read_text())["class"] == "T-shirt/top"
