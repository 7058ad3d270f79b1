"""Scores of tokens, the use of a codebook and rates of decoding, by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from lit_models.speculative.comparison import rates
from lit_models.token_metrics import TokenMetrics, by_scale, token_scores, unigram_nats
from lit_models.tokenizer.codebook import CodeCounts, perplexity, report, usage

MODEL = SimpleNamespace(bounds=(0, 1, 3), scale_of=torch.tensor([0, 1, 1]))


def test_scores_of_tokens_by_hand():
    shares = [[0.5, 0.2, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.25, 0.5, 0.15, 0.1]]
    other = [[0.2, 0.6, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.3, 0.2, 0.4, 0.1]]
    logits, tokens = torch.tensor([shares, other]).log(), torch.tensor([[0, 1, 1], [0, 2, 2]])
    nats, hit = token_scores(logits, tokens)
    chosen = [[0.5, 0.2, 0.5], [0.2, 0.1, 0.4]]
    torch.testing.assert_close(nats, -torch.tensor(chosen).log())
    assert hit.tolist() == [[1, 0, 1], [0, 0, 1]]
    metrics = TokenMetrics(2)
    frequencies = torch.tensor([[3, 0, 1, 0], [0, 5, 2, 0]])
    metrics.record(MODEL, logits, tokens, frequencies)
    total = -sum(math.log(share) for row in chosen for share in row)
    unigram = -sum(math.log(share) for share in (4 / 8, 6 / 11, 6 / 11, 4 / 8, 3 / 11, 3 / 11))
    found = {name: metric.compute().item() for name, metric in metrics.items()}
    assert found == pytest.approx(
        {
            "nats_per_token": total / 6,
            "nats_per_image": total / 2,
            "accuracy": 3 / 6,
            "unigram_nats_per_token": unigram / 6,
            "unigram_nats_per_image": unigram / 2,
            "loss/scale_0": -(math.log(0.5) + math.log(0.2)) / 2,
            "accuracy/scale_0": 1 / 2,
            "loss/scale_1": -(math.log(0.2) + math.log(0.5) + math.log(0.1) + math.log(0.4)) / 4,
            "accuracy/scale_1": 2 / 4,
        }
    )


def test_tokens_of_leading_scales_are_cut_at_their_ends():
    values = torch.arange(6.0).reshape(2, 3)
    assert [part.tolist() for part in by_scale(MODEL, values)] == [[[0], [3]], [[1, 2], [4, 5]]]
    assert [part.tolist() for part in by_scale(MODEL, values[:, :1])] == [[[0], [3]]]


def test_frequencies_plus_one():
    wanted = -torch.tensor([[4 / 7, 1 / 7, 2 / 7], [1 / 3, 1 / 3, 1 / 3]]).log()
    torch.testing.assert_close(unigram_nats(torch.tensor([[3, 0, 1], [0, 0, 0]])), wanted)


def test_the_use_of_a_codebook_by_hand():
    counts = torch.tensor([[8, 4, 4, 0], [100, 100, 199, 1], [92, 100, 200, 8], [0, 0, 0, 0]])
    # 8 % of even use are 0.32, 8 and 8
    assert usage(counts).tolist() == [75.0, 75.0, 100.0, 0.0]
    bits = [0.5 * 1 + 2 * 0.25 * 2]
    assert perplexity(counts)[0].item() == pytest.approx(2 ** bits[0])
    named = report(counts[:1])
    assert {name: value.item() for name, value in named.items()} == pytest.approx(
        {"usage/scale_0": 75.0, "perplexity/scale_0": 2**1.5}
    )
    metric = CodeCounts(1, 4)
    for row in (counts[:1], counts[1:2]):
        metric.update(row)
    assert metric.compute().tolist() == [[108, 104, 203, 1]]


def test_rates_by_hand():
    sums = {
        "images": 4.0,
        "target_calls": 10.0,
        "draft_calls": 6.0,
        "accepted_scales": 25.0,
        "target_computed_tokens": 60.0,
        "draft_computed_tokens": 20.0,
        "flops": 8e9,
        "seconds/wall": 2.0,
        "target_only/seconds": 5.0,
        "agreement": 3.0,
        "difference": 0.2,
        "verified/scale_0": 8.0,
        "accepted/scale_0": 6.0,
        "verified/scale_1": 0.0,
        "accepted/scale_1": 0.0,
    }
    assert rates(sums) == pytest.approx(
        {
            "target_calls_per_image": 2.5,
            "draft_calls_per_image": 1.5,
            "target_tokens_per_image": 15.0,
            "draft_tokens_per_image": 5.0,
            "gflops_per_image": 2.0,
            "accepted_scales_per_call": 2.5,
            "ms_per_image": 500.0,
            "target_only_ms_per_image": 1250.0,
            "speedup": 2.5,
            "token_agreement": 0.75,
            "pixel_difference": 0.05,
            "acceptance/scale_0": 0.75,
        }
    )
