"""SDVAR's configs fit the signatures and the configs of their networks; the digits pair runs from fit to samples."""

from pathlib import Path

import pytest
import torch
from cli_runs import shipped
from jsonargparse import ArgumentParser
from PIL import Image
from sdvar_toys import blurred, same, transformer, vqvae

from lit_models import LitVAR
from litscale.cli.main import main
from litscale.models.sdvar import AdaptiveGamma, Coupled, DecoderFactory, Refine, Speculative
from litscale.models.var import VAR, VQVAE, generate

CONFIGS = Path(__file__).parents[3] / "configs"
SDVAR = CONFIGS / "sdvar"


LAYERS = {
    "quality": (Refine, {"entry_num": 6, "target_first": True}),
    "balanced": (Refine, {"entry_num": 5, "target_first": True}),
    "speed": (Refine, {"entry_num": 4, "target_first": True}),
    "lossless": (Speculative, {"gamma": 2, "acceptance": Coupled()}),
    "adaptive": (Speculative, {"gamma": AdaptiveGamma(), "acceptance": Coupled()}),
}


def test_every_layer_is_known():
    assert {path.stem for path in SDVAR.glob("*.yaml")} == {*LAYERS, "digits", "d16_d30", "fashion_mnist"}


@pytest.fixture(scope="module")
def models():
    """A pair of ten scales."""
    target = transformer(vqvae((1, 2, 3, 4, 5, 6, 7, 8, 9, 10)))
    return blurred(target, 0.01), target


@pytest.mark.parametrize("name", LAYERS)
def test_layers_choose_the_decoder_and_what_saves_arithmetic(name, models):
    base = shipped("test", SDVAR / "d16_d30.yaml")["model"]["init_args"]
    config = shipped("test", SDVAR / "d16_d30.yaml", SDVAR / f"{name}.yaml")["model"]["init_args"]
    given = config.pop("decoder")
    base.pop("decoder")
    if LAYERS[name][0] is Refine:
        base["generation"] |= {"cfg_until": 4, "top_k": [900, 900, 900, 900, 1]}
    assert config == base
    assert base["generation"] | {"top_k": 900, "cfg_until": None} == {
        "cfg": 1.5,
        "top_k": 900,
        "top_p": 0.96,
        "temperature": 1.0,
        "greedy": False,
        "smooth": False,
        "cfg_until": None,
        "prune": None,
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("decoder", type=DecoderFactory)
    decoder = parser.instantiate(parser.parse_object({"decoder": given})).decoder(draft=models[0], target=models[1])
    kind, options = LAYERS[name]
    assert type(decoder) is kind
    assert {option: getattr(decoder, option) for option in options if option != "gamma"} == {
        option: value for option, value in options.items() if option != "gamma"
    }
    made = decoder.decode([0], seed=0)
    if kind is Refine:
        assert made.report.target_calls == options["entry_num"]
    else:
        assert str(decoder.gamma) == str(options["gamma"])
        assert same(made.tokens, generate(models[1], [0], seed=0).tokens)


@pytest.mark.parametrize("name", ["lossless", "adaptive"])
def test_lossless_layers_lose_nothing_over_a_lossy_config(name):
    """Where a layer changes the class alone, options of the same name stay."""
    lossy, config = (shipped("test", SDVAR / "digits.yaml", *layer) for layer in ((), (SDVAR / f"{name}.yaml",)))
    thresholds = [
        each["model"]["init_args"]["decoder"]["init_args"]["acceptance"]["init_args"]["threshold"]
        for each in (lossy, config)
    ]
    assert thresholds == [0.8, 1.0]
    fast = shipped("test", SDVAR / "d16_d30.yaml", SDVAR / "speed.yaml", SDVAR / f"{name}.yaml")
    options = fast["model"]["init_args"]["generation"]
    assert (options["cfg_until"], options["prune"]) == (None, None)


@pytest.mark.parametrize(
    ("pair", "draft", "target"),
    [
        ("digits", "digits/var_draft", "digits/var_target"),
        ("fashion_mnist", "fashion_mnist/var_draft", "fashion_mnist/var_target"),
        ("d16_d30", "imagenet/var_d16", "imagenet/var_d30"),
    ],
)
def test_pairs_are_the_networks_that_were_trained(pair, draft, target):
    config = shipped("fit", SDVAR / f"{pair}.yaml")["model"]["init_args"]
    for role, path in (("draft", draft), ("target", target)):
        trained = shipped("fit", CONFIGS / f"{path}.yaml")
        network = trained["model"]["init_args"]["network"]["init_args"]
        assert config["vqvae"]["init_args"] == network["vqvae"]["init_args"]
        given = config[role]["init_args"]
        for name in ("num_classes", "depth", "width", "heads", "mlp_ratio", "shared_aln", "attn_l2_norm"):
            assert given[name] == network[name], name
        if pair != "d16_d30":
            folder = trained["trainer"]["default_root_dir"]
            assert config[f"{role}_checkpoint"] == f"{folder}/checkpoints/last.ckpt"


@pytest.mark.slow
def test_digits_from_distillation_to_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    settings = shipped("fit", SDVAR / "digits.yaml")["model"]["init_args"]
    tokenizer = VQVAE(**settings["vqvae"]["init_args"])
    for role in ("draft", "target"):
        module = LitVAR(VAR(tokenizer, **settings[role]["init_args"]))
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        path = Path(settings[f"{role}_checkpoint"])
        path.parent.mkdir(parents=True)
        torch.save(checkpoint, path)
    config = ["--config", str(SDVAR / "digits.yaml"), "--trainer.enable_progress_bar", "false"]
    batches = ["--data.batch_size", "16"]
    short = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.limit_val_batches", "1"]
    main(["fit", *config, *short, "--trainer.check_val_every_n_epoch", "1", "--model.fit_images", "2", *batches])
    folder = Path("runs/sdvar_digits")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert "val/accepted_scales_per_call" in (folder / "logs/version_0/metrics.csv").read_text()
    for role in ("draft", "target"):
        Path(settings[f"{role}_checkpoint"]).unlink()
    own = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/last.ckpt")]
    quick = ["--trainer.enable_progress_bar", "false", "--trainer.limit_test_batches", "1"]
    main(["test", *own, *quick, *batches])
    assert "speculative (gamma 3, KL, threshold 0.8)" in capsys.readouterr().out
    assert (folder / "decode_test.png").is_file()
    main(["predict", *own, *quick, "--data.predict.num_samples", "2"])
    (predictions,) = (folder / "predictions").iterdir()
    with Image.open(predictions / "sample_00000.gif") as picture:
        assert picture.n_frames > 1
