"""Cache, rotary positions and attention."""

import pytest
import torch

from models.layers.attention import Attention, recorded_attention
from models.layers.kv_cache import KVCache
from models.layers.rope import rope_table, rotate


def test_cache_truncates_and_refuses_overflow():
    cache = KVCache(4)
    first = torch.randn(1, 2, 3, 5)
    cache.append(first, first)
    cache.truncate(2)
    second = torch.randn(1, 2, 2, 5)
    keys, values = cache.append(second, -second)
    assert torch.equal(keys, torch.cat([first[:, :, :2], second], 2))
    assert torch.equal(values, torch.cat([first[:, :, :2], -second], 2))
    with pytest.raises(ValueError, match="the cache holds 4 tokens, 5 are needed"):
        cache.append(first[:, :, :1], first[:, :, :1])
    with pytest.raises(ValueError, match="cannot truncate 4 cached tokens to 5"):
        cache.truncate(5)


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_a_pass_continued_after_truncation_equals_a_fresh_one(causal):
    torch.manual_seed(0)
    attention = Attention(16, 2).double().eval()
    x = torch.randn(2, 6, 16, dtype=torch.double)
    cache = KVCache(8)
    attention(torch.randn(2, 6, 16, dtype=torch.double), causal, cache=cache)
    cache.truncate(0)
    attention(x[:, :2], causal, cache=cache)
    continued = attention(x[:, 2:], causal, cache=cache)
    whole = attention(x, causal)[:, 2:]
    torch.testing.assert_close(continued, whole)


@torch.no_grad()
def test_rotation_makes_scores_depend_on_the_offset_only():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8).unbind(0)
    scores = []
    for shift in (0, 3):
        table = rope_table(torch.tensor([2 + shift, 5 + shift]), torch.tensor([1, 0]), 8)
        turned = rotate(torch.cat([query, key], dim=2), table)
        scores.append(turned[0, 0, 0] @ turned[0, 0, 1])
    torch.testing.assert_close(scores[0], scores[1])
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        rope_table(torch.arange(2), torch.arange(2), 6)


@torch.no_grad()
def test_recorded_weights_are_those_that_were_used():
    torch.manual_seed(0)
    attention = Attention(8, 2).eval()
    x = torch.randn(1, 5, 8)
    with recorded_attention(attention) as weights:
        out = attention(x, causal=True)
    values = attention.qkv(x).unflatten(-1, (3, 2, -1))[:, :, 2].transpose(1, 2)
    torch.testing.assert_close(attention.proj((weights[0] @ values).transpose(1, 2).flatten(2)), out)
    assert (weights[0].triu(1) == 0).all()
    assert attention.recorder is None
