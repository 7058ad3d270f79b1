"""Counts of exact parallel decoding over several calls."""

import pytest

from litscale.metrics.decoding_statistics import DecodingStatistics
from litscale.models.fractal import GenerationReport


def counts(patches, passes, patch_passes, symbols, margin, draft_passes=0):
    """Those of a call."""
    names = ("patches", "passes", "patch_passes", "symbols", "draft_passes", "margin")
    return dict(zip(names, (patches, passes, patch_passes, symbols, draft_passes, margin), strict=True))


def test_counts_are_added_up_before_they_are_divided():
    metric = DecodingStatistics()
    metric.update(counts(4, 9, 12, 96, 0.25, draft_passes=5))
    metric.update({})  # a module that counts nothing
    metric.update(counts(1, 7, 7, 24, 0.5, draft_passes=2))
    values = {name: value.item() for name, value in metric.compute().items()}
    assert values == {
        "draft_passes": 7,
        "passes": 16,
        "passes_per_patch": pytest.approx(19 / 5),
        "accepted_per_pass": pytest.approx(120 / 19),
        "margin": 0.25,
    }
    metric.reset()
    metric.update(counts(2, 3, 4, 5, 0.75))
    assert metric.compute().keys() == {"passes", "passes_per_patch", "accepted_per_pass", "margin"}
    assert metric.margin == 0.75


def test_no_margin_where_no_symbol_has_a_runner_up():
    metric = DecodingStatistics()
    metric.update(counts(2, 3, 4, 5, float("inf")))
    assert metric.compute().keys() == {"passes", "passes_per_patch", "accepted_per_pass"}
    metric.update(counts(2, 3, 4, 5, 0.5))
    assert metric.compute()["margin"] == 0.5


def test_nothing_is_said_of_what_was_not_decoded_in_parallel():
    metric = DecodingStatistics()
    metric.update({})
    assert metric.compute() == {}
    metric.update(GenerationReport().counts())
    assert metric.compute() == {}
