"""The prefix masks, and handing over from draft to target."""

import json

import pytest
import torch
from golden_var import GOLDEN, transformer
from sdvar_toys import LABELS, pair, same

from litscale.models.sdvar import MASKS, CollaborativeDecoding, DraftOnly, TargetOnly, prefix_mask
from litscale.models.var import VARGeneration, generate
from litscale.models.var.generate import gumbel_max

CASES = json.loads((GOLDEN / "masks.json").read_text())["cases"]
BETWEEN = [(mask, entry) for mask in MASKS for entry in (1, 2, 3)]


@pytest.fixture(scope="module")
def models():
    return pair(0.1)


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("mode", range(6))
def test_masks_equal_the_recorded_matrices(case, mode):
    record = CASES[case]
    mask = prefix_mask(MASKS[mode], record["patch_nums"], record["entry_num"])
    assert torch.equal(mask, torch.tensor(record["may_attend"][str(mode)], dtype=torch.bool))


@pytest.mark.parametrize(("name", "entry"), BETWEEN)
@torch.no_grad()
def test_a_perturbed_position_moves_what_the_mask_lets_it_reach(name, entry):
    model = transformer("v0")
    mask = prefix_mask(name, model.patch_nums, entry)
    length = len(mask)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, length - 1, model.vqvae.dim, generator=generator)
    condition = model.condition(torch.tensor([3]))
    before = model.extend(inputs, condition, model.new_cache(), 0, mask=mask)
    steps = (mask | torch.eye(length, dtype=torch.bool)).double()
    reach = torch.linalg.matrix_power(steps, len(model.blocks)) > 0
    for j in range(1, length):
        changed = inputs.clone()
        changed[:, j - 1] += 1
        moved = (model.extend(changed, condition, model.new_cache(), 0, mask=mask) - before).abs().amax((0, 2)) > 1e-6
        assert torch.equal(moved, reach[:, j])


@pytest.mark.parametrize(("name", "entry"), BETWEEN)
@pytest.mark.parametrize("cfg", [0.0, 1.5])
@torch.no_grad()
def test_the_entry_scale_is_drawn_under_the_mask(models, name, entry, cfg):
    draft, target = models
    labels = torch.tensor(LABELS)
    made = CollaborativeDecoding(draft, target, entry_num=entry, mask=name).decode(
        labels, VARGeneration(cfg=cfg), seed=2
    )
    assert same(made.tokens[:entry], generate(draft, labels, VARGeneration(cfg=cfg), seed=2).tokens[:entry])
    inputs = target.vqvae.quantizer.teacher_input(made.tokens[:entry])
    options = VARGeneration(cfg=cfg)
    rows, copies = (torch.cat([labels, torch.full_like(labels, -1)]), 2) if cfg else (labels, 1)
    mask = prefix_mask(name, target.patch_nums, entry)
    cache = target.new_cache()
    condition = target.condition(rows)
    raw = target.extend(inputs.repeat(copies, 1, 1), condition, cache, 0, mask=mask)[:, target.bounds[entry] :]
    logits = options.at(entry).logits(raw, target.progress(entry))
    noise = options.noise(2, torch.arange(len(labels)), entry, logits.shape[1], target.vocab)
    assert torch.equal(made.tokens[entry], gumbel_max(logits, noise))
    if entry == 1 and name != "causal":
        plain = target.extend(inputs.repeat(copies, 1, 1), condition, target.new_cache(), 0)[:, target.bounds[1] :]
        # n_0 = 1: without the current scale these two are causal
        assert torch.allclose(plain, raw, atol=1e-5) == (name in ("sd_without_current", "block_without_current"))


@pytest.mark.parametrize("cfg", [0.0, 1.5])
def test_the_ends_are_the_models_alone(models, cfg):
    draft, target = models
    options = VARGeneration(cfg, top_k=9, top_p=0.9)
    for mask in MASKS:
        first = CollaborativeDecoding(draft, target, entry_num=0, mask=mask).decode(LABELS, options, seed=4)
        assert same(first.tokens, generate(target, LABELS, options, seed=4).tokens)
        last = CollaborativeDecoding(draft, target, entry_num=4, mask=mask).decode(LABELS, options, seed=4)
        assert same(last.tokens, generate(draft, LABELS, options, seed=4).tokens)
    expected = generate(target, LABELS, options, seed=4)
    alone = TargetOnly(target=target, vqvae=target.vqvae).decode(LABELS, options, seed=4)
    assert same(alone.tokens, expected.tokens)
    assert torch.equal(alone.images, expected.images)
    assert same(DraftOnly(draft=draft).decode(LABELS, options, seed=4).tokens, last.tokens)
    assert alone.report.target_calls_by_image.tolist() == [4] * 5
    assert last.report.target_calls_by_image.tolist() == [0] * 5
    assert last.report.draft_calls == 4 * 5


@pytest.mark.parametrize("entry", [1, 2, 3])
@pytest.mark.parametrize("swapped", [False, True])
def test_causally_the_target_continues_the_draft(models, entry, swapped):
    draft, target = models[::-1] if swapped else models
    drafted = generate(draft, LABELS, seed=7).tokens
    known = [torch.full_like(tokens, k < entry, dtype=torch.bool) for k, tokens in enumerate(drafted)]
    expected = generate(target, LABELS, seed=7, tokens=drafted, known=known)
    made = CollaborativeDecoding(draft, target, entry_num=entry, mask="causal").decode(LABELS, seed=7)
    assert same(made.tokens, expected.tokens)
    torch.testing.assert_close(made.images, expected.images, atol=1e-5, rtol=0)
    report = made.report
    assert report.target_calls_by_image.tolist() == [4 - entry] * 5
    assert report.draft_calls == entry * 5
    assert (report.target_tokens, report.draft_tokens) == (5 * 30, 5 * target.bounds[entry])
    assert report.text().splitlines()[2] == "image 0: " + " | ".join(["d" * entry + "t", *"ttt"[entry:]])


def test_bad_options(models):
    with pytest.raises(ValueError, match=r"unknown mask 'triangle'; known are none, sd_with_current"):
        CollaborativeDecoding(*models, mask="triangle")
    for entry in (-1, 5):
        with pytest.raises(ValueError, match=rf"entry_num must be in 0..4, the number of scales, not {entry}"):
            CollaborativeDecoding(*models, entry_num=entry)
    with pytest.raises(ValueError, match=r"entry_num must be in 0..3 to have an entry scale, not 4"):
        prefix_mask("causal", (1, 2, 3, 4), 4)
