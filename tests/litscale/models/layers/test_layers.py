"""Cache, rotary positions and attention."""

import math

import pytest
import torch

from litscale.models.layers.attention import Attention, causal_mask, recorded_attention
from litscale.models.layers.blocks import Block, GeluMLP, Stack, StackConfig, SwiGLU
from litscale.models.layers.kv_cache import KVCache
from litscale.models.layers.rope import rope_table, rotate


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
    attention(torch.randn(2, 6, 16, dtype=torch.double), cache=cache, causal=causal)
    cache.truncate(0)
    attention(x[:, :2], cache=cache, causal=causal)
    continued = attention(x[:, 2:], causal_mask(4, 6) if causal else None, cache=cache)
    whole = attention(x, causal=causal)[:, 2:]
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
    assert not attention._forward_hooks


def test_rotations_by_hand():
    """Of two pairs for each axis the first turns by 1 a cell, the second by a hundredth."""
    table = rope_table(torch.tensor([3, 0]), torch.tensor([5, 2]), 8)
    angles = torch.tensor([[3, 0.03, 5, 0.05], [0, 0, 2, 0.02]])
    torch.testing.assert_close(table.real, angles.cos())
    torch.testing.assert_close(table.imag, angles.sin())
    x = torch.tensor([1.0, 2, 0, 1, 3, 0, 2, 2]).expand(1, 1, 2, 8)
    turned = rotate(x, table)[0, 0, 0]
    pairs = zip([(1, 2), (0, 1), (3, 0), (2, 2)], angles[0].tolist(), strict=True)
    wanted = [(a * math.cos(t) - b * math.sin(t), a * math.sin(t) + b * math.cos(t)) for (a, b), t in pairs]
    assert turned.tolist() == pytest.approx([number for pair in wanted for number in pair], abs=1e-6)
    assert rotate(x.to(torch.bfloat16), table).dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_attention_against_plain_sums(causal):
    torch.manual_seed(0)
    attention = Attention(6, 3, bias=True)
    x = torch.randn(2, 4, 6)
    q, k, v = (part.view(2, 4, 3, 2).transpose(1, 2) for part in attention.qkv(x).split(6, dim=-1))
    scores = q @ k.transpose(-1, -2) / 2**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(4, 4).triu(1).bool(), float("-inf"))
    expected = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 4, 6))
    torch.testing.assert_close(attention(x, causal=causal), expected)


@torch.no_grad()
def test_dropout_of_attention_weights_is_on_in_training():
    torch.manual_seed(0)
    attention = Attention(8, 2, attn_dropout=0.5)
    x = torch.randn(4, 5, 8)
    whole = attention.eval()(x)
    assert torch.equal(attention(x), whole)
    assert not torch.equal(attention.train()(x), whole)


@torch.no_grad()
def test_feed_forwards_by_hand():
    # two thirds of the ratio, rounded up to a multiple of 256: 256 of 96 channels, 266.7 of 100
    assert [SwiGLU(width).gate.out_features for width in (96, 100)] == [256, 512]
    assert [GeluMLP(12, ratio).fc1.out_features for ratio in (4.0, 1.5)] == [48, 18]
    gated, plain, x = SwiGLU(3), GeluMLP(3, 2.0), torch.randn(2, 3)
    inner = gated.gate(x)
    torch.testing.assert_close(gated(x), gated.down(inner / (1 + (-inner).exp()) * gated.up(x)))
    inner = plain.fc1(x)
    torch.testing.assert_close(plain(x), plain.fc2(0.5 * inner * (1 + (inner / 2**0.5).erf())))
    block = Block(StackConfig(4, 1, 2), "llama")
    assert isinstance(block.mlp, SwiGLU)
    y = torch.randn(1, 3, 4)
    middle = y + block.attn(block.norm1(y), causal=True)
    torch.testing.assert_close(block(y, causal=True), middle + block.mlp(block.norm2(middle)))
    assert (block.norm1.eps, Block(StackConfig(4, 1, 2), "vit").norm1.eps) == (1e-5, 1e-6)


@torch.no_grad()
def test_recorded_weights_of_two_causal_tokens():
    attention = Attention(4, 1).eval()
    with recorded_attention(attention) as weights:
        attention(torch.randn(1, 2, 4), causal=True)
        attention(torch.randn(1, 1, 4), causal=True)
    assert weights[0][0, 0, 0].tolist() == [1, 0]
    assert 0 < weights[0][0, 0, 1, 0] < 1
    assert weights[1].tolist() == [[[[1]]]]


@torch.no_grad()
def test_recorded_weights_of_a_mask_and_of_cached_tokens():
    torch.manual_seed(0)
    attention, x, cache = Attention(8, 2).eval(), torch.randn(1, 5, 8), KVCache(5)
    with recorded_attention(attention) as weights:
        attention(x, causal=True)
        attention(x[:, :2], cache=cache, causal=True)
        attention(x[:, 2:], causal_mask(3, 5), cache=cache)
    torch.testing.assert_close(weights[2], weights[0][:, :, 2:])


@torch.no_grad()
@pytest.mark.parametrize("style", ["vit", "llama"])
def test_a_stack_continues_from_its_caches(style):
    """One token, then several, then one more: the stack chooses what they see."""
    torch.manual_seed(0)
    stack, x = Stack(StackConfig(16, 2, 2), style).double().eval(), torch.randn(2, 6, 16, dtype=torch.double)
    caches = [KVCache(6) for _ in stack]
    parts = [stack(x[:, a:b], True, caches=caches) for a, b in ((0, 1), (1, 5), (5, 6))]
    torch.testing.assert_close(torch.cat(parts, dim=1), stack(x, True))
