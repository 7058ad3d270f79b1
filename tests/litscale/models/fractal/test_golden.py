"""Parity with numbers recorded from the official FractalGen code, see tests/golden/fractalgen/README.md."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from litscale.models.fractal import (
    Fractal,
    Generation,
    fractal,
    generate,
    generation_recursion,
    load_official,
    masking,
    to_official,
)
from litscale.models.fractal.ar import AR
from litscale.models.fractal.checkpoints import _generator_name, _head_pairs, official_arguments
from litscale.models.fractal.generator import GeneratorConfig
from litscale.models.fractal.guidance import guided
from litscale.models.fractal.head import CategoricalHead
from litscale.models.fractal.mar import MAR
from litscale.models.fractal.presets import PRESETS
from litscale.models.layers.blocks import StackConfig

GOLDEN = Path(__file__).parents[3] / "golden" / "fractalgen"
WHOLE = ["fractal_ar", "fractal_mar", "fractal_mar_guiding"]
BUILDERS = json.loads((GOLDEN / "configs.json").read_text())["builders"]


def recorded(name):
    meta = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    state = {key.removeprefix("state."): value.float() for key, value in tensors.items() if key.startswith("state.")}
    return meta, tensors, state


def build(meta, state):
    return load_official(state, {**meta["config"], "attn_dropout": 0.0, "proj_dropout": 0.0})


def generator_of(name):
    meta, tensors, state = recorded(name)
    config, ar = meta["config"], name.startswith("ar")
    side = int(config["seq_len"] ** 0.5)
    settings = GeneratorConfig(
        3 * config["patch_size"] ** 2,
        (side, side),
        StackConfig(config["embed_dim"], config["num_blocks"], config["num_heads"]),
        config.get("num_conds", 1),
        config["cond_embed_dim"],
        guide_channels=3 if config.get("guiding_pixel") else 0,
        positions="both" if ar else "learned",
        zero_prefix_rope=True,
    )
    generator = (AR if ar else MAR)(settings).eval()
    with torch.no_grad():
        for ours, parameter in generator.named_parameters():
            parameter.copy_(state[_generator_name(ours, ar)].reshape(parameter.shape))
    return generator, tensors, config, (side, side)


@pytest.mark.parametrize("name", ["ar_n9", "ar_n16"])
def test_ar_conditions(name):
    generator, tensors, _, grid = generator_of(name)
    patches, condition = tensors["input.patches"], tensors["input.cond"][:, None]
    with torch.no_grad():
        at_once = generator(patches, condition, grid)[:, :, 0]
        stepper = generator.stepper(condition, None, generator.tables(grid, cached=True))
        steps = []
        for k in range(patches.shape[1]):
            steps.append(stepper.condition())
            stepper.feed(patches[:, k])
    torch.testing.assert_close(at_once, tensors["output.cond_training"], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(steps, 1), tensors["output.cond_cached"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["mar_conds1", "mar_conds1_guiding", "mar_conds5", "mar_conds5_guiding"])
def test_mar_conditions(name):
    generator, tensors, config, grid = generator_of(name)
    conditions = torch.stack([tensors[f"input.cond{i}"] for i in range(config["num_conds"])], 1)
    with torch.no_grad():
        handed = generator(
            tensors["input.patches"],
            conditions,
            grid,
            tensors.get("input.guiding_pixel"),
            mask=tensors["input.mask"].bool(),
        )
    for i, where in enumerate(("middle", "top", "right", "bottom", "left")):
        torch.testing.assert_close(handed[:, :, i], tensors[f"output.{where}"], atol=1e-4, rtol=0)


def test_leaf():
    meta, tensors, state = recorded("pixelloss")
    config = meta["config"]
    stack = StackConfig(config["width"], config["depth"], config["num_heads"])
    head = CategoricalHead(stack, config["c_channels"], 3, 256).eval()
    pixels, condition, blank = tensors["input.pixels"].long(), tensors["input.cond"], tensors["input.uncond"]
    with torch.no_grad():
        for official, parameter in _head_pairs("", head):
            parameter.copy_(state[official])
        logits = head.logits(pixels, condition[:, None])
        nats, _ = head(pixels, condition[:, None])
        torch.testing.assert_close(logits, tensors["output.logits"], atol=1e-4, rtol=0)
        torch.testing.assert_close(nats, tensors["output.cross_entropy"], atol=1e-4, rtol=0)
        for cfg in (1, 3):
            drawn = tensors[f"output.sample_cfg{cfg}_pixels"].long()
            scaled = head.logits(drawn, condition[:, None]) * 1.1
            if cfg != 1:
                scaled = guided(scaled, head.logits(drawn, blank[:, None]) * 1.1, cfg, 1e-3)
            expected = tensors[f"output.sample_cfg{cfg}_probs"]
            torch.testing.assert_close(scaled.softmax(-1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", WHOLE)
def test_losses(name, monkeypatch):
    meta, tensors, state = recorded(name)
    model = build(meta, state)
    for key in (key for key in tensors if key.startswith("output.loss")):

        class Fixed(masking.Masking):
            third = key.endswith("mod3")

            def __call__(self, rows, patches, device):
                mask = torch.ones(patches, dtype=torch.bool)
                if self.third:
                    mask[::3] = False
                return mask.expand(rows, -1), torch.ones(rows), rows * int(mask.sum())

        monkeypatch.setattr(fractal, "Masking", Fixed)
        model.train("train" in key)
        model.channel_weights = torch.tensor([1.0 if key.endswith("r_weight_1") else 5.0, 1.0, 1.0])
        labels = tensors["input.labels"] if "train" in key else None
        loss = model(tensors["input.pixels"], labels).loss
        torch.testing.assert_close(loss.detach(), tensors[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", WHOLE)
def test_greedy_samples(name, monkeypatch):
    meta, tensors, state = recorded(name)
    model = build(meta, state)
    for tag, settings in meta["samples"].items():

        def order(kind, scan, keys, affine=settings["order"] == "affine"):
            position = torch.arange(len(scan))
            visited = (5 * position + 3) % len(scan) if affine else position
            return (len(scan) - 1 - visited.argsort()).expand(len(keys), -1)  # the official code begins with the last

        monkeypatch.setattr(generation_recursion, "generation_order", order)
        drawn = generate(
            model,
            tensors["input.sample_labels"],
            Generation(
                iterations=meta.get("num_iter_list", 1),
                temperature=1 / settings["temperature"],
                cfg=settings["cfg"],
                cfg_schedule=settings["cfg_schedule"],
                filter_threshold=settings["filter_threshold"],
                greedy=True,
            ),
        )
        assert torch.equal(drawn, tensors[f"output.sample_{tag}_pixels"]), tag


@pytest.mark.parametrize("name", WHOLE)
def test_import_export_is_the_identity(name, tmp_path):
    meta, _, state = recorded(name)
    exported = to_official(build(meta, state))
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[key], state[key]) for key in state)
    torch.save({"model": exported}, tmp_path / "official.pth")
    again = to_official(load_official(tmp_path / "official.pth", meta["config"]))
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("name", BUILDERS)
def test_official_names_shapes_and_counts(name):
    with torch.device("meta"):
        model = Fractal(**official_arguments(BUILDERS[name]["arguments"]))
        ours = {key: list(value.shape) for key, value in to_official(model).items()}
    assert ours == dict(BUILDERS[name]["state_dict"])
    assert sum(parameter.numel() for parameter in model.parameters()) == BUILDERS[name]["total_parameters"]


@pytest.mark.parametrize("name", BUILDERS)
def test_presets_are_the_official_builders(name):
    recorded = BUILDERS[name]["arguments"]
    assert {key: PRESETS[name][key] for key in recorded} == recorded
    with torch.device("meta"):
        ours, theirs = (Fractal(**official_arguments(arguments)) for arguments in (name, recorded))
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match=r"there is no preset 'fractal_in32'; known are fractalar_in64, "):
        load_official({}, "fractal_in32")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("run",)

    meta, _, state = recorded("fractal_ar")
    torch.save({"model": state, "args": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match=r"hostile\.pth holds more than weights and plain values"):
        load_official(tmp_path / "hostile.pth", meta["config"])


def test_misfits_are_listed_by_name():
    meta, _, state = recorded("fractal_ar")
    broken = dict(state, surplus=torch.zeros(1), fake_latent=torch.zeros(1, 3))
    del broken["class_emb.weight"]
    with pytest.raises(ValueError, match=r"missing class_emb.weight; unexpected surplus; fake_latent is \[1, 3\]"):
        load_official(broken, meta["config"])
