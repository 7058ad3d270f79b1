"""The examples of docs/extending.md: an acceptance rule, a gamma policy and a decoder from a file of one's own."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from sdvar_lit_toys import SIZES, lit_sdvar

from litscale.cli.main import main
from litscale.models.sdvar import Speculative
from litscale.models.var import VARGeneration

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"
VQVAE = {"patch_nums": [1, 2, 4], "vocab": 16, "dim": 8, "channels": 8, "multipliers": [1, 2], "blocks": 1}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Path of a config of a small pair; beside it lies ``own_decoding.py``."""
    section = PAGE.read_text().split("## A decoder of VAR")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    (layer,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    (tmp_path / "own_decoding.py").write_text(code)
    (tmp_path / "layer.yaml").write_text(layer)
    networks = {
        role: {"class_path": "litscale.models.var.VAR", "init_args": {"num_classes": 10, **sizes}}
        for role, sizes in SIZES.items()
    }
    tokenizer = {"class_path": "litscale.models.var.VQVAE", "init_args": VQVAE | {"in_channels": 1}}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {
        "seed_everything": 1,
        "trainer": {"default_root_dir": "run", "accelerator": "cpu", "limit_test_batches": 1, **quiet}
        | {"callbacks": [{"class_path": "callbacks.TargetCalls"}]},
        "model": {"class_path": "lit_models.LitSDVAR", "init_args": {"vqvae": tokenizer, **networks}},
        "data": {"class_path": "datamodules.DigitsDataModule", "init_args": {"size": 8, "batch_size": 16}},
    }
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return ["--config", "pair.yaml", "--untrained", "true"]


def rows():
    """The table that a test wrote, by decoder."""
    return json.loads(Path("run/decode_test.json").read_text())["rows"]


def test_own_rule_and_policy_from_a_config(config):
    main(["test", *config, "--config", "layer.yaml"])
    found = rows()
    assert list(found) == ["target only", "speculative (gamma Early, until 2, Leading, count 1)"]
    assert 1 <= found["speculative (gamma Early, until 2, Leading, count 1)"]["target_calls_per_image"] <= 3


def test_own_decoder_from_the_command_line(config):
    main(["test", *config, "--model.decoder", "own_decoding.TakingTurns", "--model.decoder.target_first", "true"])
    assert rows()["TakingTurns"]["target_calls_per_image"] == 2


def test_own_rule_in_a_benchmark(config):
    short = ["--num_images", "2", "--batch_size", "2", "--seeds", "1", "--gammas", "[1]", "--entry_nums", "[]"]
    short += ["--large_scales", "[]", "--generations", "[]", "--repeats", "1", "--speed_batches", "[1]"]
    main(["bench", "decode", *config, *short, "--acceptances", "[own_decoding.Leading,Coupled]"])
    table = json.loads(Path("run/bench_decode.json").read_text())["rows"]
    assert list(table)[2:] == [
        "speculative (gamma 2, Coupled)",
        "speculative (gamma 1, Leading)",
        "speculative (gamma 1, Coupled)",
    ]


def test_own_classes_do_what_they_say(config):
    import own_decoding

    module = lit_sdvar(generation=VARGeneration(cfg=0.0), decoder=partial(own_decoding.TakingTurns, target_first=True))
    draft, target = module.draft, module.target
    made = module.decoder.decode([0, 1, 2], module.generation, seed=3)
    alone = module.target_only.decode([0, 1, 2], module.generation, seed=3)
    assert torch.equal(made.tokens[0], alone.tokens[0])
    # what the draft would draw there is another's first choice
    turned = own_decoding.TakingTurns(draft, target).decode([0, 1, 2], module.generation, seed=3)
    assert made.report.target_calls_by_image.tolist() == [2] * 3
    assert turned.report.target_calls_by_image.tolist() == [1] * 3
    assert turned.report.target_tokens == 3 * (1 + 4)
    decoder = Speculative(draft, target, gamma=own_decoding.Early(until=1), acceptance=own_decoding.Leading(count=1))
    rounds = decoder.decode([0, 1, 2], module.generation, seed=3).report.rounds
    assert rounds[0].drafted == 2  # three, but for the last scale
    assert all(entry.drafted <= 1 for entry in rounds[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.decoder", "fast"], "fast"),
        (["--model.decoder.acceptance", "best"], "best"),
        (["--model.decoder.gamma", "often"], "often"),
        (["--model.decoder", "CollaborativeDecoding", "--model.decoder.gamma", "2"], "gamma"),
        (["--model.decoder.acceptance", "Rejection", "--model.decoder.acceptance.threshold", "0.5"], "threshold"),
    ],
)
def test_unknown_classes_and_options_are_named(config, arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["test", *config, *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--model.target litscale.models.sdvar.Refine", "expected a class of the kind VAR"),
        ("--model.draft litscale.models.sdvar.TargetOnly", "expected a class of the kind VAR"),
        ("--model.target Refine", "there is no class Refine of the kind VAR"),
        ("--model.decoder litscale.models.sdvar.Coupled", "expected a class of the kind Decoder"),
        ("--model.decoder.acceptance litscale.models.sdvar.Refine", "expected a class of the kind Acceptance"),
        ("--model.decoder.acceptance Refine", "there is no class Refine of the kind Acceptance"),
        (
            "--model.decoder.gamma litscale.models.sdvar.Coupled",
            "expected a class of the kind GammaPolicy or a whole number",
        ),
        ("--data callbacks.Samples", "expected a class of the kind LightningDataModule or null"),
    ],
)
def test_a_class_of_another_kind_is_one_line(config, given, message, capsys):
    with pytest.raises(SystemExit):
        main(["test", *config, *given.split()])
    assert capsys.readouterr().err == f"litscale test: error: {given}: {message}\n"


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("target", {"class_path": "litscale.models.sdvar.Refine", "init_args": {"large_scales": 2}}, "VAR"),
        (
            "decoder.acceptance",
            {
                "class_path": "litscale.models.sdvar.Speculative",
                "init_args": {"acceptance": {"class_path": "litscale.models.sdvar.Refine"}},
            },
            "Acceptance",
        ),
    ],
)
def test_a_class_of_another_kind_in_a_config_is_one_line(config, option, value, kind, capsys):
    Path("wrong.yaml").write_text(yaml.safe_dump({"model": {"init_args": {option.partition(".")[0]: value}}}))
    with pytest.raises(SystemExit):
        main(["test", *config, "--config", "wrong.yaml"])
    said = f"wrong.yaml: model.{option} litscale.models.sdvar.Refine: expected a class of the kind {kind}\n"
    assert capsys.readouterr().err == f"litscale test: error: {said}"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("litscale.models.sdvar.Refine", "expected a class of the kind Acceptance or null"),
        ("Refine", "there is no class Refine of the kind Acceptance"),
    ],
)
def test_a_rule_of_another_kind_in_a_benchmark_is_one_line(given, reason, config, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "decode", *config, "--acceptances", f"[TopK,{given}]"])
    assert capsys.readouterr().err == f"litscale bench decode: error: --acceptances {given}: {reason}\n"
