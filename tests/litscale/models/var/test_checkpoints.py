"""Official names, shapes and counts, both ways; misfits are named."""

import argparse
import json

import pytest
import torch
from golden_var import GOLDEN, NAMES, VQVAE_ARGUMENTS, tensors, tokenizer, transformer, var_arguments

from litscale.models.var import PRESETS, VQVAE, load_official_var, load_official_vqvae, to_official
from litscale.models.var.checkpoints import _constants, _multipliers

OFFICIAL = json.loads((GOLDEN / "official_state.json").read_text())
DEPTHS = ["var_d16", "var_d20", "var_d24", "var_d30", "var_d36_512"]
INT64 = ["i64"]


def blank(entries):
    """Tensors of the recorded names, shapes and dtypes, without memory."""
    return {
        name: torch.empty(shape, dtype=torch.int64 if dtype == INT64 else torch.float32)
        for name, shape, *dtype in entries
    }


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def described(state):
    return {name: (tuple(value.shape), value.dtype) for name, value in state.items()}


@pytest.mark.parametrize("arguments", [OFFICIAL["vae_256"]["config"], "vae_256", "vae_512"])
def test_official_tokenizer(arguments):
    with torch.device("meta"):
        state = blank(OFFICIAL["vae_256"]["state"])
        model = load_official_vqvae(state, arguments)
        assert described(to_official(model)) == described(state)
    assert parameters(model) == OFFICIAL["vae_256"]["total_params"]
    sides = OFFICIAL["vae_512_differences" if arguments == "vae_512" else "vae_256"]["config"]["patch_nums"]
    assert model.patch_nums == tuple(sides)


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("by_preset", [True, False])
def test_official_transformers(name, by_preset):
    config = OFFICIAL[name]["config"]
    with torch.device("meta"):
        vqvae = load_official_vqvae(blank(OFFICIAL["vae_256"]["state"]), "vae_512" if "512" in name else "vae_256")
        state = blank(OFFICIAL[name]["state"])
        constants = [key for key in state if key in OFFICIAL[name]["buffers"]]  # values, which meta tensors lack
        learned = {key: value for key, value in state.items() if key not in constants}
        model = load_official_var(learned, vqvae, name if by_preset else config)
        assert described(to_official(model)) == described(state)
        assert list(_constants(model)) == constants
    assert parameters(model) == OFFICIAL[name]["total_params"]
    assert model.blocks[-1].drop_path == pytest.approx(config["drop_path_rate"])
    assert model.label_drop == config["cond_drop_rate"]


def test_import_export_is_the_identity_for_tokenizers(tmp_path):
    state = tensors("vqvae_state")
    exported = to_official(tokenizer())
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[key], state[key]) for key in state)
    for i, wrapped in enumerate([exported, {"model": exported}, {"trainer": {"vae_local": exported}}]):
        torch.save(wrapped, tmp_path / f"{i}.pth")
        again = to_official(load_official_vqvae(tmp_path / f"{i}.pth", VQVAE_ARGUMENTS))
        assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("name", NAMES)
def test_import_export_is_the_identity_for_transformers(name, tmp_path):
    state, vqvae = tensors(f"{name}_state"), tokenizer()
    exported = to_official(transformer(name, vqvae))
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[key], state[key]) for key in state)
    torch.save({"trainer": {"var_wo_ddp": exported, "vae_local": {}}}, tmp_path / "ar-ckpt.pth")
    again = to_official(load_official_var(str(tmp_path / "ar-ckpt.pth"), vqvae, var_arguments(name)))
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize(("phis", "quant_resi"), [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5), (4, 0.0)])
def test_phi_names(phis, quant_resi):
    variant = "resi0" if not quant_resi else "znorm" if phis == 4 else f"share{phis}"
    prefix = f"variants.{variant}.sd."
    recorded = {key.removeprefix(prefix) for key in tensors("quant_io") if key.startswith(prefix)}
    model = VQVAE(
        (1, 2, 3, 4), vocab=64, dim=16, channels=32, multipliers=(1, 1), blocks=1, phis=phis, quant_resi=quant_resi
    )
    ours = {key.removeprefix("quantize.") for key in to_official(model) if key.startswith("quantize.")}
    assert ours == recorded | {"ema_vocab_hit_SV"}


def test_arguments_that_the_official_code_leaves_out_are_read_from_the_checkpoint():
    given = {key: value for key, value in VQVAE_ARGUMENTS.items() if key != "ch_mult"}
    vqvae = load_official_vqvae(tensors("vqvae_state"), given)
    assert vqvae.image_size == 16
    given = {key: value for key, value in var_arguments("v0").items() if key != "num_classes"}
    assert load_official_var(tensors("v0_state"), vqvae, given).num_classes == 7


def test_misfits_are_listed_by_name():
    state = dict(tensors("vqvae_state"), surplus=torch.zeros(1))
    state["quant_conv.bias"] = torch.zeros(3)
    del state["encoder.conv_in.weight"]
    message = r"missing encoder.conv_in.weight; unexpected surplus; quant_conv.bias is \[3\] instead of \[16\]"
    with pytest.raises(ValueError, match=message):
        load_official_vqvae(state, VQVAE_ARGUMENTS)
    state = dict(tensors("v0_state"), pos_start=torch.zeros(1, 2, 64))
    with pytest.raises(ValueError, match=r"pos_start is \[1, 2, 64\] instead of \[1, 1, 64\]"):
        load_official_var(state, tokenizer(), var_arguments("v0"))
    state = dict(tensors("v0_state"), lvl_1L=torch.zeros(1, 30, dtype=torch.long))
    with pytest.raises(ValueError, match="lvl_1L has other values than these arguments give"):
        load_official_var(state, tokenizer(), var_arguments("v0"))


def test_a_checkpoint_of_another_depth():
    with pytest.raises(ValueError, match=r"its depth is 2 instead of 5; missing blocks\.2\.attn"):
        load_official_var(tensors("v0_state"), tokenizer(), {**var_arguments("v0"), "depth": 5})


def test_another_vocabulary():
    small = VQVAE((1, 2, 3, 4), vocab=32, dim=16, channels=32, multipliers=(1, 1, 2))
    with pytest.raises(ValueError, match=r"its vocabulary is 64, the tokenizer's 32; .*head.bias is \[64\] instead of"):
        load_official_var(tensors("v0_state"), small, var_arguments("v0"))
    with pytest.raises(ValueError, match="the transformer's vocab is 64, but its tokenizer's vocab is 32"):
        load_official_var(tensors("v0_state"), small, {**var_arguments("v0"), "vocab": 64})
    with pytest.raises(ValueError, match=r"patch_nums is \(1, 2, 3, 4, 6, .*, but its tokenizer's patch_nums is"):
        load_official_var({}, small, "var_d36_512")


def test_unknown_arguments():
    with pytest.raises(ValueError, match="unknown arguments chanels; known are v_patch_nums"):
        load_official_vqvae(tensors("vqvae_state"), {**VQVAE_ARGUMENTS, "chanels": 3})
    with pytest.raises(ValueError, match=r"arguments must be a mapping or among vae_256, .*, not 'var_d17'"):
        load_official_var({}, tokenizer(), "var_d17")
    assert list(PRESETS) == ["vae_256", "vae_512", *DEPTHS]


def test_files_are_read_as_all_checkpoints_are(tmp_path):
    state = to_official(transformer("v0"))
    options = argparse.Namespace(lr=1e-4)  # the official code's training checkpoints hold one
    torch.save({"trainer": {"var_wo_ddp": state}, "args": options}, tmp_path / "training.pth")
    model = load_official_var(tmp_path / "training.pth", tokenizer(), var_arguments("v0"))
    assert all(torch.equal(value, state[name]) for name, value in to_official(model).items())
    cut = tmp_path / "cut.pth"
    cut.write_bytes((tmp_path / "training.pth").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut\.pth is damaged or truncated"):
        load_official_var(cut, tokenizer(), var_arguments("v0"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file"):
        load_official_vqvae(tmp_path / "nowhere.pth", VQVAE_ARGUMENTS)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth holds no state dict"):
        load_official_vqvae(tmp_path / "list.pth", VQVAE_ARGUMENTS)


@pytest.mark.parametrize(("given", "multipliers"), [({}, [1, 2, 4]), ({"ch": 80}, [2, 4, 8])])
def test_multipliers_are_counted_in_the_published_width(given, multipliers):
    widths = (160, 320, 640)
    state = {f"encoder.down.{i}.block.0.conv2.bias": torch.zeros(width) for i, width in enumerate(widths)}
    assert _multipliers(state, given) == multipliers
