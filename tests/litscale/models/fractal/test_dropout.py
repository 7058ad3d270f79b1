"""Dropout stands where FractalGen's code has it: both kinds in MAR levels, after projections in AR levels, no more."""

import pytest
import torch
from torch import nn

from litscale.models.fractal import Fractal
from litscale.models.layers.attention import Attention


def built(generators, **options):
    torch.manual_seed(0)
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1)]
    return Fractal(sizes, generators, [16] * 4, [2, 1, 1, 1], [2] * 4, codec="rgb", guiding=True, **options)


def dropouts(module):
    """Rates after projections and of attention weights, in order."""
    after = [part.p for part in module.modules() if isinstance(part, nn.Dropout)]
    return after, [part.attn_dropout for part in module.modules() if isinstance(part, Attention)]


def test_rates_are_those_of_the_published_code():
    model = built(["ar", "mar", "ar"], attn_dropout=0.2, proj_dropout=0.3)
    ar, mar, last = (level.generator for level in model.levels)
    # a block has one after the attention and one after the feed-forward
    assert dropouts(ar) == ([0.3] * 4, [0.0] * 2)
    assert dropouts(mar) == ([0.3] * 2, [0.2])
    assert dropouts(last) == ([0.3] * 2, [0.0])
    heads = [model.leaf, *(level.guide_head for level in model.levels[1:])]
    assert len(heads) == 3
    for head in heads:
        after, weights = dropouts(head)
        assert set(after) == {0.0}
        assert set(weights) == {0.0}


@pytest.mark.parametrize(("generator", "rate", "equal"), [("ar", 0.9, True), ("mar", 0.9, False), ("mar", 0.0, True)])
def test_attention_weights_are_dropped_in_mar_levels_only(stir, generator, rate, equal):
    level = stir(built([generator] * 3, attn_dropout=rate)).levels[0].generator.train()
    patches, conditions = torch.randn(2, 4, 48), torch.randn(2, 1, 16)
    mask = {} if level.causal else {"mask": torch.tensor([[True, False, False, True]]).expand(2, -1)}
    first, second = (level(patches, conditions, (2, 2), **mask) for _ in range(2))
    assert torch.equal(first, second) == equal


def test_heads_drop_nothing(stir):
    model = stir(built(["mar"] * 3, attn_dropout=0.9, proj_dropout=0.9)).train()
    symbols = torch.randint(0, 256, (5, 3))
    for head in (model.leaf, model.levels[1].guide_head):
        conditions = torch.randn(5, 5, 16)
        assert torch.equal(head(symbols, conditions)[0], head(symbols, conditions)[0])
