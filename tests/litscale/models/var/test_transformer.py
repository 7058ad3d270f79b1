"""Causality, cache, masks and training of the transformer."""

import json
import math
from itertools import pairwise

import pytest
import torch
from golden_var import GOLDEN, NAMES, tokenizer, transformer
from torch.nn import functional as F  # noqa: N812

from litscale.models.var import VAR, VQVAE

LABELS = torch.tensor([3, 6])
MASKS = json.loads((GOLDEN / "masks.json").read_text())["cases"]


def random_tokens(model, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(model.vocab, (batch, side**2), generator=generator) for side in model.patch_nums]


def inputs_of(model, seed=0):
    return model.vqvae.quantizer.teacher_input(random_tokens(model, seed))


def loss_of(model, seed=0):
    tokens = random_tokens(model, seed)
    logits = model(LABELS, model.vqvae.quantizer.teacher_input(tokens))
    return F.cross_entropy(logits.flatten(0, 1), torch.cat(tokens, 1).flatten())


def fresh(patch_nums=(1, 2, 4), **options):
    torch.manual_seed(0)
    vqvae = VQVAE(patch_nums, vocab=16, dim=8, channels=32, multipliers=(1, 1), blocks=1)
    return VAR(vqvae, **{"num_classes": 7, "depth": 2, "width": 16, "heads": 2} | options)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_scale_sees_only_the_scales_before(name):
    model = transformer(name)
    tokens = random_tokens(model)
    quantizer = model.vqvae.quantizer
    before = model(LABELS, quantizer.teacher_input(tokens))
    for k in range(model.scales):
        changed = list(tokens)
        changed[k] = tokens[k].clone()
        changed[k][:, -1] = (tokens[k][:, -1] + 1) % model.vocab
        after = model(LABELS, quantizer.teacher_input(changed))
        end = model.bounds[k + 1]
        assert torch.equal(before[:, :end], after[:, :end])
        if end < model.length:
            assert (before[:, end:] - after[:, end:]).abs().amax(-1).min() > 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parts", [(0, 1, 2, 3, 4), (0, 4), (0, 2, 4), (0, 1, 4), (0, 3, 4)])
@torch.no_grad()
def test_several_scales_in_one_call_equal_one_by_one(name, parts):
    model = transformer(name)
    inputs = inputs_of(model)
    expected = model(LABELS, inputs)
    condition, cache = model.condition(LABELS), model.new_cache()
    given = F.pad(inputs, (0, 0, 1, 0))  # aligned with the tokens: scale 0 has no input
    for first, last in pairwise(parts):
        start, end = model.bounds[first], model.bounds[last]
        logits = model.extend(given[:, max(start, 1) : end], condition, cache, first)
        torch.testing.assert_close(logits, expected[:, start:end], atol=1e-5, rtol=1e-5)
        assert cache.length == end


@torch.no_grad()
def test_scale_zero_needs_no_input():
    model = transformer("v1")
    logits = model.extend(None, model.condition(LABELS), model.new_cache(), 0)
    torch.testing.assert_close(logits, model(LABELS, inputs_of(model))[:, :1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("accepted", [1, 2, 3])
@torch.no_grad()
def test_after_truncation_a_continued_pass_equals_a_fresh_one(accepted):
    model = transformer("v0")
    rejected, inputs = inputs_of(model, 1), inputs_of(model, 0)
    end = model.bounds[accepted]
    rejected[:, : end - 1] = inputs[:, : end - 1]
    condition, cache = model.condition(LABELS), model.new_cache()
    wrong = model.extend(rejected, condition, cache, 0)
    cache.truncate(end)
    continued = model.extend(inputs[:, end - 1 :], condition, cache, accepted)
    expected = model(LABELS, inputs)[:, end:]
    torch.testing.assert_close(continued, expected, atol=1e-5, rtol=1e-5)
    assert (wrong[:, end:] - expected).abs().max() > 1e-2


@pytest.mark.parametrize("case", range(len(MASKS)))
@pytest.mark.parametrize("mode", list("012345"))
@torch.no_grad()
def test_each_mask_opens_the_positions_of_its_matrix(case, mode):
    record = MASKS[case]
    model = fresh(record["patch_nums"], depth=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    mask = torch.tensor(record["may_attend"][mode], dtype=torch.bool)
    total = len(mask)
    inputs = torch.randn(1, total - 1, 8)
    condition = model.condition(LABELS[:1])
    before = model.extend(inputs, condition, model.new_cache(), 0, mask=mask)
    for j in range(1, total):
        changed = inputs.clone()
        changed[:, j - 1] += 1
        after = model.extend(changed, condition, model.new_cache(), 0, mask=mask)
        moved = (after - before).abs().amax((0, 2)) > 1e-7
        assert torch.equal(moved, mask[:, j] | (torch.arange(total) == j))
    if mode == "3":
        torch.testing.assert_close(before, model.extend(inputs, condition, model.new_cache(), 0))


@torch.no_grad()
def test_a_mask_covers_the_cache_too():
    model = transformer("v0")
    inputs = inputs_of(model)
    condition, cache = model.condition(LABELS), model.new_cache()
    model.extend(inputs[:, :4], condition, cache, 0)
    blind = torch.zeros(9, 14, dtype=torch.bool)
    blind[:, 5:] = True
    logits = model.extend(inputs[:, 4:13], condition, cache, 2, mask=blind)
    alone = model.extend(inputs[:, 4:13], condition, model.new_cache(), 2)
    torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"mask must be \[16, 30\] \(new, cached and new\), not \[16, 16\]"):
        model.extend(inputs[:, 13:], condition, cache, 3, mask=torch.ones(16, 16, dtype=torch.bool))


@torch.no_grad()
def test_leading_scales_alone():
    model = transformer("v2")
    inputs = inputs_of(model)
    part = model(LABELS, inputs[:, :4])
    torch.testing.assert_close(part, model(LABELS, inputs)[:, :5], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"the input covers tokens 0 to 6, but scales end at \[1, 5, 14, 30\]"):
        model(LABELS, inputs[:, :5])


@pytest.mark.parametrize("shared_aln", [False, True])
def test_every_parameter_gets_a_gradient_and_a_fresh_model_predicts_uniformly(shared_aln):
    model = fresh(shared_aln=shared_aln, drop_path=0.2, dropout=0.1, attn_dropout=0.1).train()
    loss = loss_of(model)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert abs(loss.item() - math.log(16)) < 0.05
    assert all(parameter.grad is None for parameter in model.vqvae.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_no_gradient(name):
    gradients = []
    for grad_checkpointing in (False, True):
        model = transformer(name, grad_checkpointing=grad_checkpointing, drop_path=0.5).train()
        torch.manual_seed(0)
        loss_of(model).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_keeps_the_loss_close(name):
    model = transformer(name).train()
    exact = loss_of(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = loss_of(model)
    rough.backward()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0)


def test_labels_are_dropped_in_training_only():
    model = transformer("v0", label_drop=1.0)
    inputs = inputs_of(model)
    with torch.no_grad():
        nobody = model(None, inputs)
        assert (model(LABELS, inputs) - nobody).abs().max() > 0.1
        torch.testing.assert_close(model.train()(LABELS, inputs), nobody)


def test_drop_path_keeps_the_expectation():
    model = fresh(depth=2, drop_path=0.5)
    x = torch.ones(20000, 1, 16)
    dropped = model.blocks[1].train()._branch(x)
    assert set(dropped[:, 0, 0].tolist()) == {0.0, 2.0}
    assert abs(dropped.mean() - 1) < 0.03
    assert torch.equal(model.blocks[0].train()._branch(x), x)


def test_the_tokenizer_is_held_not_owned():
    vqvae = tokenizer().train()
    model = transformer("v0", vqvae)
    model.train()
    assert not vqvae.training
    assert not any(parameter.requires_grad for parameter in vqvae.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == 165576
    assert not any("codebook" in name for name in model.state_dict())
    torch.nn.Sequential(model).double()
    assert vqvae.quantizer.codebook.weight.dtype == torch.float64
    assert transformer("v1", vqvae).vqvae is vqvae


def test_the_command_line_can_build_it(tmp_path):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(VAR, "network")
    config = tmp_path / "config.yaml"
    config.write_text(
        "network:\n  class_path: litscale.models.var.VAR\n  init_args:\n    num_classes: 10\n    depth: 2\n    vqvae:\n"
        "      class_path: litscale.models.var.VQVAE\n"
        "      init_args: {patch_nums: [1, 2], channels: 32, multipliers: [1, 1]}\n"
    )
    model = parser.instantiate_classes(parser.parse_args([f"--config={config}"])).network
    assert (model.patch_nums, model.vqvae.image_size, len(model.blocks)) == ((1, 2), 4, 2)


@pytest.mark.parametrize("label", [-2, 7])
def test_labels_out_of_range(label):
    with pytest.raises(ValueError, match=rf"labels must be in -1..6, got .*{label}"):
        transformer("v0").condition(torch.tensor([label, 0]))


@pytest.mark.parametrize("heads", [3, 0, -2])
def test_heads_that_do_not_divide_the_width(heads):
    with pytest.raises(ValueError, match=f"width 16 is not a multiple of the number of heads {heads}"):
        fresh(heads=heads)
