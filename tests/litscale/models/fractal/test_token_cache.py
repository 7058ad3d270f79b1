"""MAR steps that recompute some patches and keep the others (LazyMAR)."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.generator import GeneratorConfig
from litscale.models.fractal.mar import MAR, MARSteps
from litscale.models.fractal.masking import renewed_patches
from litscale.models.layers.blocks import StackConfig
from litscale.models.layers.rope import rotate

GRID = (2, 3)


@pytest.fixture
def level(stir):
    """Build a MAR level over 2 x 3 patches with its conditions, the first time's patches and their masks."""

    def build(positions="both", lone=False):
        torch.manual_seed(0)
        config = GeneratorConfig(5, GRID, StackConfig(16, 2, 2), 2, 8, guide_channels=3, positions=positions, lone=lone)
        given = torch.randn(3, 2, 8), torch.randn(3, 3)
        return stir(MAR(config)), given, torch.randn(3, 6, 5), torch.rand(3, 6) < 0.5

    return build


@pytest.fixture
def model(stir):
    """A model of two MAR levels with classes."""
    torch.manual_seed(0)
    sizes = [(8, 8), (2, 2), (1, 1)]
    return stir(Fractal(sizes, ["mar", "mar"], [16] * 3, [2, 1, 1], [2] * 3, codec="binary", num_classes=3))


def steps_of(generator, given, local=None):
    return MARSteps(generator, given[0], GRID, given[1], local, cached=True)


@pytest.mark.parametrize("positions", ["learned", "rope", "both"])
@pytest.mark.parametrize(("lone", "told"), [(False, True), (True, False)])
@torch.no_grad()
def test_patches_that_are_all_computed_anew_are_those_of_a_plain_pass(level, positions, lone, told):
    generator, given, patches, mask = level(positions, lone)
    local = torch.randn(3, 6, 16) if told else None
    steps, other = steps_of(generator, given, local), torch.randn(3, 6, 5)
    plain = generator(patches, given[0], GRID, given[1], local, mask=mask)
    assert torch.equal(steps.conditions(patches, mask), plain)
    # the prefix sees the patches, too, and a step that keeps patches keeps it: nothing else may differ in one block
    del generator.blocks[1:]
    steps = steps_of(generator, given, local)
    steps.conditions(patches, mask)
    order = torch.stack([torch.randperm(6) for _ in range(3)])
    row = torch.arange(3)[:, None]
    renewed = steps.conditions(other[row, order], ~mask[row, order], order)
    torch.testing.assert_close(
        renewed, generator(other, given[0], GRID, given[1], local, mask=~mask), rtol=1e-5, atol=1e-6
    )
    again = steps.conditions(patches, mask)
    assert torch.equal(again, generator(patches, given[0], GRID, given[1], local, mask=mask))


@torch.no_grad()
def test_patches_that_are_kept_are_what_they_were(level):
    generator, given, patches, mask = level(lone=True)
    other = torch.randn(3, 6, 5)
    # rows of two, one and no patches; 6 says that a row has fewer
    index = torch.tensor([[4, 1], [2, 6], [6, 6]])
    steps, row = steps_of(generator, given), torch.arange(3)[:, None]
    before = steps.conditions(patches, mask).clone()
    after = steps.conditions(other[row, index.clamp(max=5)], torch.zeros(3, 2, dtype=torch.bool), index)
    changed = (after != before).flatten(2).any(2)
    assert changed.tolist() == [[i in chosen for i in range(6)] for chosen in ([4, 1], [2], [])]
    expected = by_hand(generator, given, (patches, mask), other, [[4, 1], [2], []])
    torch.testing.assert_close(after[:, :, 0], expected, rtol=1e-5, atol=1e-5)


def by_hand(generator, given, first, other, chosen):
    """States of rows one by one: a plain pass that keeps what enters each block, then the chosen tokens, revealed."""
    patches, mask = first
    added, rope = generator.position_tables(GRID, torch.arange(6))
    rows = []
    for r, picked in enumerate(chosen):
        prefix = generator.prefix_tokens(given[0][r : r + 1], given[1][r : r + 1])[0]
        old = torch.where(mask[r, :, None], generator.mask_token, generator.embed(patches[r]))
        new = generator.embed(other[r])
        x = generator.in_norm(torch.cat([prefix, old]) + added)
        places = torch.tensor(picked, dtype=torch.long) + generator.prefix
        y = generator.in_norm(torch.cat([prefix, new]) + added)[places]
        for block in generator.blocks:
            held = block.norm1(x)
            x = x + attend(block, held, held, rope, rope)
            mixed = held.clone()
            mixed[places] = block.norm1(y)
            y = y + attend(block, mixed[places], mixed, rope[places], rope)
            x, y = x + block.mlp(block.norm2(x)), y + block.mlp(block.norm2(y))
        x[places] = y
        rows.append(generator.norm(x)[generator.prefix :])
    return torch.stack(rows)


def attend(block, queries, seen, turn, turns):
    """Attention from tokens ``[n, D]`` to tokens ``[S, D]``, head by head."""
    attn, outs = block.attn, []
    q, k, v = (F.linear(x, w, b) for x, w, b in zip(
        (queries, seen, seen), attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3), strict=True
    ))  # fmt: skip
    for one_q, one_k, one_v in zip(q.chunk(attn.heads, 1), k.chunk(attn.heads, 1), v.chunk(attn.heads, 1), strict=True):
        scores = rotate(one_q, turn) @ rotate(one_k, turns).t() / one_q.shape[1] ** 0.5
        outs.append(scores.softmax(1) @ one_v)
    return attn.proj(torch.cat(outs, 1))


def test_a_step_renews_what_was_revealed_last_and_what_it_draws():
    queue = torch.tensor([[3, 0, 2, 1], [1, 2, 0, 3], [0, 1, 2, 3]])
    # rows of four, of two and of no patches to generate
    schedule = torch.tensor([[4, 2, 0], [3, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert renewed_patches(queue, schedule, 2, torch.tensor([2, 1, 0])).tolist() == [[3, 0, 2], [1, 2, 4], [4, 4, 4]]
    assert renewed_patches(queue, schedule, 3, torch.tensor([1, 0, 0])).tolist() == [[0, 2, 1], [2, 4, 4], [4, 4, 4]]


@pytest.mark.parametrize("period", [2, 3, [1, 2], [5, 1]])
def test_steps_with_and_without_all_patches(model, monkeypatch, period):
    seen, plain = {id(level.generator): [] for level in model.levels}, MARSteps.conditions

    def spy(self, patches, mask, index=None):
        seen[id(self._generator)].append(patches.shape[1])
        return plain(self, patches, mask, index)

    monkeypatch.setattr(MARSteps, "conditions", spy)
    generate(model, options=Generation(iterations=[5, 4], schedule="linear", token_cache=period), seed=0)
    first, second = (seen[id(level.generator)] for level in model.levels)
    of_first, of_second = period if isinstance(period, list) else (period, period)
    # 16 patches in five steps leave 12, 9, 6, 3 and none: four, then three at a time
    assert first == [16 if k % of_first == 0 else 7 if k == 1 else 6 for k in range(5)]
    assert second == [4 if k % of_second == 0 else 2 for k in range(4)] * 5


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_a_sample_is_the_same_in_any_batch(model, order, cfg):
    options = Generation(iterations=[6, 3], cfg=cfg, order=order, token_cache=[3, 2])
    label, canvas = torch.arange(5) % 3, torch.randint(0, 2, (5, 1, 8, 8), dtype=torch.uint8)
    # rows differ in how many patches they renew: none, some, most and all cells are known
    known = torch.zeros(5, 1, 8, 8, dtype=torch.bool)
    known[1, :, :, :3], known[2, :, 1:], known[3] = True, True, True
    whole = generate(model, label, options, canvas=canvas, known=known, seed=3)
    assert torch.equal(whole[known], canvas[known])
    for some in ([4, 1, 3, 0, 2], [1], [2], [4], [3, 0]):
        part = torch.tensor(some)
        drawn = generate(model, label[part], options, canvas=canvas[part], known=known[part], seed=3, index=part)
        assert torch.equal(drawn, whole[part])


def test_the_cache_is_used_and_one_turns_it_off(model):
    options = {"iterations": [8, 4], "schedule": "linear"}
    plain = generate(model, options=Generation(**options), batch_size=6, seed=0)
    assert torch.equal(plain, generate(model, options=Generation(**options, token_cache=[1, 1]), batch_size=6, seed=0))
    assert not torch.equal(plain, generate(model, options=Generation(**options, token_cache=8), batch_size=6, seed=0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "token_cache must be at least 1, not 0"),
        ([2, 0], r"token_cache must be at least 1, not \[2, 0\]"),
        (1.5, "token_cache must be a whole number, not 1.5"),
        ([2], "token_cache has 1 entry for 2 levels"),
    ],
)
def test_bad_periods(model, value, message):
    with pytest.raises(ValueError, match=message):
        generate(model, options=Generation(token_cache=value), seed=0)
