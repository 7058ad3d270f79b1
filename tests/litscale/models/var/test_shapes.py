"""The shapes that docs/var_shapes.md gives are those of the real modules, at every scale."""

import re
from pathlib import Path

import pytest
import torch

from litscale.models.var import PRESETS, VAR, VQVAE, VARGeneration
from litscale.models.var.generate import generate_scales

PAGE = (Path(__file__).parents[4] / "docs" / "var_shapes.md").read_text()
SECTIONS = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:])
OF_D16 = {
    letter: int(value)
    for letter, value in re.findall(r"^\| (\w) \| .* \| (\d+)[^|]*\|$", PAGE.split("\n## ")[0], flags=re.MULTILINE)
}


def rows(section):
    """Module, shape in letters and shape of VAR-d16 of each row of a section's table."""
    found = re.findall(r"^\| .* \| `([\w.]+)` \| (\(.*?\)) \| (\(.*?\)) \|$", SECTIONS[section], flags=re.MULTILINE)
    assert len(found) == SECTIONS[section].count("\n| ") - 2
    return found


def shape(text, sizes):
    """A shape such as ``(R, 6*D)`` with the letters' values."""
    return eval(text, {"__builtins__": {}}, sizes)


def recorded(model, labels, options):
    """Shapes by name of all tensors before, at each scale, and after the last one."""
    before, at_scale, current = {}, [], {}

    def keep(name):
        return lambda module, inputs, output: current.__setitem__(name, tuple(output.shape))

    quantizer = model.vqvae.quantizer
    named = {name: model.get_submodule(name) for name in ("class_emb", "word_emb", "head")}
    named |= {f"blocks.0.{name}": model.blocks[0].get_submodule(name) for name in ("attn", "modulation")}
    named |= {"codebook": quantizer.codebook, "post_quant_conv": model.vqvae.post_quant_conv}
    named |= {"decoder": model.vqvae.decoder}
    for name, module in named.items():
        module.register_forward_hook(keep(name))
    for phi in quantizer.phis:
        phi.register_forward_hook(keep("phi"))
    model.class_emb.register_forward_hook(lambda _, inputs, __: current.update(labels=tuple(inputs[0].shape)))
    scale_input, new_cache = quantizer.scale_input, model.new_cache
    caches = []
    quantizer.scale_input = lambda f_hat, k: _kept(current, "scale_input", scale_input(f_hat, k))
    model.new_cache = lambda: caches.append(new_cache()) or caches[0]
    before["f_hat"] = tuple(quantizer.start(len(labels)).shape)
    for parameter in ("pos_start", "pos_emb"):
        before[parameter] = tuple(getattr(model, parameter).shape)
    before["scale_emb"] = tuple(model.scale_emb.weight.shape)
    for step in generate_scales(model.eval(), labels, options, seed=0):
        if not at_scale:
            before |= {name: current.pop(name) for name in ("labels", "class_emb", "blocks.0.modulation")}
        current["cache"] = tuple(caches[0].layers[0].held()[0].shape)
        current |= {"logits": tuple(step.logits.shape), "tokens": tuple(step.tokens.shape)}
        at_scale.append({**current, "f_hat": tuple(step.f_hat.shape)})
        current.clear()
    model.vqvae.decode(step.f_hat)
    return before, at_scale, current


def _kept(current, name, tensor):
    current[name] = tuple(tensor.shape)
    return tensor


@pytest.mark.parametrize("cfg", [0.0, 1.5])
@torch.no_grad()
def test_the_tables_are_what_hooks_see(cfg):
    vqvae = VQVAE([1, 2, 3, 5], vocab=24, dim=6, channels=8, multipliers=[1, 1, 1, 1, 1], blocks=1)
    model = VAR(vqvae, num_classes=7, depth=2, width=48, heads=4)
    labels = torch.tensor([0, 4, 6])
    sizes = {"B": 3, "S": 4, "L": 39, "V": 24, "K": 6, "D": 48, "H": 4, "h": 5, "R": 6 if cfg else 3}
    before, at_scale, after = recorded(model, labels, VARGeneration(cfg=cfg))
    assert {name: shape(text, sizes) for name, text, _ in rows("Before the first scale")} == before
    assert {name: shape(text, sizes) for name, text, _ in rows("After the last scale")} == after
    for k, (p, m) in enumerate([(1, 1), (2, 5), (3, 14), (5, 39)]):
        told = {name: shape(text, sizes | {"p": p, "n": p * p, "m": m}) for name, text, _ in rows("At each scale")}
        if k == 0:  # as the page says
            del told["scale_input"], told["word_emb"]
        assert told == at_scale[k]


def test_the_numbers_of_d16_are_its_preset_s():
    tokenizer, sides = PRESETS["vae_256"], PRESETS["var_d16"]["patch_nums"]
    depth = PRESETS["var_d16"]["depth"]  # the official code has as many heads, of 64 channels each
    expected = {
        **{"B": 8, "R": 16, "S": len(sides), "L": sum(side**2 for side in sides), "h": sides[-1]},
        **{"V": tokenizer["vocab_size"], "K": tokenizer["z_channels"], "H": depth, "D": 64 * depth},
        **{"p": sides[5], "n": sides[5] ** 2, "m": sum(side**2 for side in sides[:6])},
    }
    assert expected == OF_D16
    for section in ("Before the first scale", "At each scale", "After the last scale"):
        for name, text, numbers in rows(section):
            assert shape(text, OF_D16) == shape(numbers, {}), name
