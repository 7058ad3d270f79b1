"""Dropout by hand: what is left keeps its mean, and attention weights are dropped in training alone."""

import torch

from litscale.models.layers.attention import Attention
from litscale.models.layers.dropout import Dropout


def test_what_is_left_keeps_its_mean():
    torch.manual_seed(0)
    out = Dropout(0.25, shared=True)(torch.full((1000, 2, 8), 3.0))
    assert set(out.unique().tolist()) == {0.0, 4.0}
    assert abs(out.mean() - 3) < 0.1


@torch.no_grad()
def test_dropout_of_attention_weights_is_on_in_training():
    torch.manual_seed(0)
    attention = Attention(8, 2, attn_dropout=0.5)
    x = torch.randn(4, 5, 8)
    whole = attention.eval()(x)
    assert torch.equal(attention(x), whole)
    assert not torch.equal(attention.train()(x), whole)
