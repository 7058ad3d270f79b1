"""The arithmetic of a pass of VAR, by formula.

Dimensions: S scales, n tokens of a scale, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from litscale.models.var.transformer import VAR


def pass_flops(model: VAR, first: int, sizes: Sequence[int], tokens: Sequence[int], cached: int) -> int:
    """Return the floating-point operations of one row of a pass: a multiplication and an addition count as two.

    Linear layers and attention are counted, as `torch.utils.flop_counter` does; not what is done once for each image
    (the modulation by the class, the tokenizer's decoder).

    Args:
        model: the network.
        first: the first scale that is read.
        sizes: number n of tokens of each scale that is read, all of which are embedded and have logits.
        tokens: number of tokens that the blocks compute of each; they attend to those cached, to those of the scales
            before, and to one another.
        cached: number of tokens in the cache.
    """
    width, hidden = model.head.in_features, model.blocks[0].mlp.fc1.out_features
    # 1. linear layers: queries, keys, values and projection; the feed-forward; embedding and head
    blocks = len(model.blocks) * (4 * width**2 + 2 * width * hidden)
    embedded = sum(sizes[1:] if first == 0 else sizes)  # scale 0 has start tokens
    linear = sum(tokens) * blocks + width * (sum(sizes) * model.vocab + embedded * model.word_emb.in_features)
    # 2. attention: logits and the mean of the values
    pairs, seen = 0, cached
    for count in tokens:
        seen += count
        pairs += count * seen
    return 2 * (linear + len(model.blocks) * 2 * width * pairs)
