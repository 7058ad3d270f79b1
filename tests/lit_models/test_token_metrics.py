"""Scores of tokens, by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from lit_models.token_metrics import TokenMetrics, by_scale, token_scores, unigram_nats

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
