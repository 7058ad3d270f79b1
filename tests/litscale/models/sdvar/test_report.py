"""Counts of decoding runs, gamma policies and costs."""

import itertools
import math
import random

import pytest
import torch
from sdvar_toys import LABELS, pair, uniform_draft

from litscale.models.sdvar import (
    AdaptiveGamma,
    CollaborativeDecoding,
    CostGamma,
    Costs,
    DecodeReport,
    FixedGamma,
    Forced,
    Round,
    Speculative,
    TargetOnly,
)
from litscale.models.var import generate

# Image 0 rejects scale 0, then takes two scales; image 1 takes two scales at once.
ROUNDS = (
    Round(images=(0, 1), first=0, drafted=2, accepted=(0, 2), kept=(1, 3), draft_tokens=5, target_tokens=14),
    Round(images=(0,), first=1, drafted=2, accepted=(2,), kept=(3,), draft_tokens=13, target_tokens=29),
    Round(images=(1,), first=3, drafted=0, accepted=(0,), kept=(1,), draft_tokens=0, target_tokens=16),
)
REPORT = DecodeReport(4, 2, ROUNDS, seconds={"wall": 1.5, "draft": 0.25}, margin=0.1)


def test_counts_by_hand():
    assert (REPORT.target_calls, REPORT.target_passes) == (4, 3)
    assert REPORT.draft_calls == 6
    assert (REPORT.target_tokens, REPORT.draft_tokens) == (14 + 14 + 29 + 16, 5 + 5 + 13)
    assert REPORT.target_calls_by_image.tolist() == [2, 2]
    assert REPORT.verified_by_scale.tolist() == [2, 2, 1, 0]
    assert REPORT.accepted_by_scale.tolist() == [1, 2, 1, 0]
    assert REPORT.accepted_scales == 4


def test_text():
    head, legend, *lines = REPORT.text().splitlines()
    assert head == (
        "images: 2; calls per image: target 2.00, draft 3.00; tokens read per image: target 36.5, draft 11.5; "
        "wall 1.500 s, draft 0.250 s"
    )
    assert legend.startswith("d drafted and kept; r redrawn by the target")
    assert lines == ["image 0: r. | ddt", "image 1: ddt | t"]
    assert REPORT.text(images=1).splitlines()[2:] == lines[:1]


def test_the_minimum_rule_in_text():
    # the second image had both accepted, but only one scale is kept for both
    entry = Round(images=(0, 1), first=0, drafted=2, accepted=(0, 2), kept=(1, 1), draft_tokens=5, target_tokens=14)
    assert [entry.marks(i) for i in range(2)] == ["r.", "d."]


def test_reports_add_up():
    merged = REPORT + REPORT + REPORT
    assert merged.images == 6
    assert merged.margin == 0.1
    assert merged.target_calls_by_image.tolist() == [2] * 6
    assert merged.draft_calls == 18
    single, triple = REPORT.totals(), merged.totals()
    assert single["accepted/scale_1"] == 2
    assert single["seconds/wall"] == 1.5
    assert triple == {name: 3 * value for name, value in single.items()}
    assert merged.text().splitlines()[-1] == "image 5: ddt | t"
    with pytest.raises(ValueError, match="reports of 4 and 5 scales cannot be added"):
        REPORT + DecodeReport(5, 0, ())


def test_tokens_and_seconds_of_real_runs():
    draft, target = pair(0.04)
    bounds = target.bounds
    plain = TargetOnly(target).decode(LABELS, seed=0).report
    assert (plain.target_calls, plain.target_tokens, plain.draft_tokens) == (20, 5 * bounds[4], 0)
    report = Speculative(draft, target, gamma=2).decode(LABELS, seed=0).report
    assert set(report.seconds) == {"wall", "draft", "target", "sampling", "vae"}
    parts = sum(seconds for part, seconds in report.seconds.items() if part != "wall")
    assert 0 < parts <= report.seconds["wall"]
    for entry in report.rounds:
        assert entry.target_tokens == bounds[entry.first + entry.drafted + 1] - bounds[entry.first]
    every = Speculative(target, target, gamma=1).decode(LABELS, seed=0).report
    # the draft reads scale 1, which the target made, in its call for scale 2
    assert [entry.draft_tokens for entry in every.rounds] == [1, bounds[3] - 1]
    handed = CollaborativeDecoding(draft, target, entry_num=2).decode(LABELS, seed=0).report
    assert handed.draft_calls == 10
    assert handed.verified_by_scale.tolist() == [0, 0, 0, 0]


def test_adaptive_gamma_follows_the_rate():
    policy = AdaptiveGamma(low=2, high=5, start=0.5)
    assert policy.choose(0) == 2
    for _ in range(60):
        policy.update(0, [10, 9], [9, 9])
    # a rate of 18 / 19: 0.5 is reached after 12 scales
    assert policy.choose(3) == 5
    policy.high = 99
    assert policy.choose(3) == int(math.log(0.5) / math.log(18 / 19))
    for _ in range(60):
        policy.update(0, [10, 0], [0, 0])
    assert policy.choose(0) == 2
    policy.reset()
    assert policy.choose(0) == 2
    assert AdaptiveGamma(start=1.0, high=7).choose(0) == 7
    assert AdaptiveGamma(start=0.0, low=1).choose(0) == 1


def test_adaptive_gamma_learns_from_decoding():
    target = pair()[1]
    good, bad = AdaptiveGamma(low=1, high=3, memory=0.5), AdaptiveGamma(low=1, high=3, memory=0.5)
    Speculative(target, target, gamma=good).decode(LABELS, seed=0)
    Speculative(uniform_draft(target), target, gamma=bad).decode(LABELS * 4, seed=0)
    assert good.choose(0) == 3
    assert bad.choose(0) == 1


def simulated(costs, gammas, acceptance, runs=20_000):
    """Mean seconds of images whose rounds use the given gammas."""
    generator = random.Random(0)
    scales, total = len(costs.target), 0.0
    for _ in range(runs):
        first = 0
        while first < scales:
            gamma = gammas[first]
            total += sum(costs.draft[first : first + gamma]) + costs.call(first, first + gamma)
            run = itertools.takewhile(lambda k: generator.random() < acceptance[k], range(first, first + gamma))
            first += len(list(run)) + 1
    return total / runs


COSTS = Costs((0.1, 0.1, 0.2, 0.4), (1.0, 1.1, 1.3, 2.0), 0.9)


def test_the_cost_model_finds_the_best_plan():
    acceptance = [0.9, 0.6, 0.8, 0.5]
    gammas, seconds = COSTS.plan(acceptance)
    assert abs(simulated(COSTS, gammas, acceptance) - seconds) < 0.02
    plans = itertools.product(range(4), range(3), range(2), [0])
    best = min(simulated(COSTS, plan, acceptance, 2000) for plan in plans)
    assert seconds < best + 0.05
    assert gammas[0] >= 1


def test_plans_at_the_extremes():
    assert COSTS.plan([1.0] * 4) == ([3, 2, 1, 0], pytest.approx(0.4 + 2.7))
    assert COSTS.plan([0.0] * 4) == ([0, 0, 0, 0], pytest.approx(5.4))
    assert COSTS.plan([0.0] * 4, low=1)[0] == [1, 1, 1, 0]
    assert COSTS.plan([1.0] * 4, high=2)[0][0] <= 2
    assert Costs((5.0,) * 4, (1.0,) * 4, 0.5).plan([1.0] * 4)[0] == [0, 0, 0, 0]


def test_the_fastest_entry_num():
    assert COSTS.entry_num() == 3
    assert COSTS.entry_num(high=4) == 4
    assert COSTS.entry_num(1, 2) == 2
    assert Costs((5.0,) * 4, (1.0,) * 4, 0.5).entry_num(0) == 0
    for low, high in ((-1, 2), (3, 2), (0, 5)):
        with pytest.raises(ValueError, match="entry_num needs bounds 0 <= low <= high <= 4"):
            COSTS.entry_num(low, high)


def test_measured_costs():
    draft, target = pair()
    costs = Costs.measure(draft, target, batch=2, repeats=2)
    assert len(costs.draft) == len(costs.target) == 4
    assert min(*costs.draft, *costs.target) > 0
    assert 0 <= costs.overhead <= min(costs.target)
    assert costs.call(1, 1) == pytest.approx(costs.target[1])


def test_cost_gamma_drafts_only_where_it_pays():
    draft, target = pair(0.04)
    policy = CostGamma(COSTS, memory=0.5)
    decoder = Speculative(draft, target, gamma=policy, acceptance=Forced(1.0))
    for rate, calls in ((1.0, 1), (0.0, 4)):
        decoder.acceptance = Forced(rate)
        for seed in range(8):
            last = decoder.decode(LABELS * 4, seed=seed).report
        assert last.target_calls_by_image.tolist() == [calls] * 20
    assert last.draft_calls == 0
    policy.reset()
    assert policy.choose(0) > 0


def test_cost_gamma_measures_before_the_first_run():
    models = pair()
    policy = CostGamma()
    with pytest.raises(RuntimeError, match="call prepare first"):
        policy.choose(0)
    made = Speculative(*models, gamma=policy).decode(LABELS, seed=0)
    assert policy.costs is not None
    assert all(torch.equal(a, b) for a, b in zip(made.tokens, generate(models[1], LABELS, seed=0).tokens, strict=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FixedGamma(0), "gamma must be at least 1, not 0"),
        (lambda: FixedGamma(1.5), r"gamma must be a whole number of scales, not 1\.5"),
        (lambda: AdaptiveGamma(high=2.5), r"high must be a whole number of scales, not 2\.5"),
        (lambda: CostGamma(low=0.5), r"low must be a whole number of scales, not 0\.5"),
        (lambda: AdaptiveGamma(low=0), "gamma needs bounds 1 <= low <= high, not 0 and 8"),
        (lambda: AdaptiveGamma(low=3, high=2), "gamma needs bounds 1 <= low <= high, not 3 and 2"),
        (lambda: AdaptiveGamma(confidence=1.0), "confidence must be above 0 and below 1, not 1.0"),
        (lambda: AdaptiveGamma(start=1.5), r"start must be in 0..1, not 1.5"),
        (lambda: CostGamma(memory=-0.5), r"memory must be in 0..1, not -0.5"),
        (lambda: CostGamma(low=-1), "gamma needs bounds 0 <= low <= high and high >= 1, not -1 and None"),
        (lambda: CostGamma(low=3, high=2), "gamma needs bounds 0 <= low <= high and high >= 1, not 3 and 2"),
        (lambda: Costs((1.0,), (1.0, 2.0)), "costs of 1 scales of the draft, but of 2 of the target"),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()
