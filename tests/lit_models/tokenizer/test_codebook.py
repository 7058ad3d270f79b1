"""The use of a codebook by hand, and the alarm where codes fall out of use."""

import warnings

import pytest
import torch

from lit_models.tokenizer.codebook import CodeCounts, UsageAlarm, perplexity, report, usage


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


def test_usage_and_perplexity():
    counts = torch.tensor([[10, 10, 0, 0], [1, 1, 1, 1], [100, 1, 2, 0], [0, 0, 0, 0]])
    assert usage(counts).tolist() == [50, 100, 25, 0]  # 8 % of even use of the third scale are 2.06
    assert perplexity(counts)[:2].tolist() == pytest.approx([2, 4])
    assert perplexity(counts)[3] == 1


def test_the_alarm_rings_once_for_scales_that_stay_low():
    def scores(*values):
        return {f"usage/scale_{k}": torch.tensor(value) for k, value in enumerate(values)}

    alarm = UsageAlarm(90.0, (1, 2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UsageAlarm(0.0, (1, 2, 4)).check(scores(0.0, 0.0, 0.0))
        alarm.check(scores(1.0, 89.0, 95.0))  # a single token has no say
        alarm.check(scores(1.0, 90.0, 20.0))  # another scale than before
    with pytest.warns(UserWarning, match=r"usage stays under 90 % \(scale 2 30 %\)\. Set network\.entropy"):
        alarm.check(scores(1.0, 10.0, 30.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarm.check(scores(1.0, 10.0, 30.0))
