"""Rates of decoding, by hand."""

import pytest

from lit_models.speculative.comparison import rates


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
