"""Acceptance rules and reports on examples in which nothing is symmetric."""

import math

import pytest
import torch
from sdvar_toys import pair

from litscale.models.sdvar import AdaptiveGamma, CollaborativeDecoding, CostGamma, Costs, DecodeReport, Round
from litscale.models.sdvar.acceptance import KL, Coupled, Proposal, Rejection, TopK
from litscale.models.sdvar.clock import Stopwatch
from litscale.models.sdvar.state import DrawnScale
from litscale.models.var import NetworkState


def proposal(draft, target, tokens, drawn=None):
    """One image; for each position of a scale both distributions, the drafted token and the target's own."""
    logits = [torch.tensor([rows]).log() for rows in (draft, target)]
    drawn = [0] * len(tokens) if drawn is None else drawn
    sides = [
        DrawnScale(side, side, torch.zeros_like(side), torch.tensor([chosen]))
        for side, chosen in zip(logits, (tokens, drawn), strict=True)
    ]
    return Proposal(*sides, 0, torch.arange(1), 2)


def test_the_divergence_is_that_of_the_draft_from_the_target():
    p, q = [0.7, 0.2, 0.1], [0.25, 0.25, 0.5]
    target_from_draft = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    draft_from_target = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert abs(target_from_draft - draft_from_target) > 0.05
    agreement = KL().agreement(proposal([q, p, p], [p, q, p], [0, 0, 0]))
    wanted = [math.exp(-target_from_draft), math.exp(-draft_from_target), 1.0]
    assert agreement[0].tolist() == pytest.approx(wanted)
    # the mean of the three decides, each token by itself what is kept of a rejected scale
    case = proposal([q, p, p], [p, q, p], [1, 1, 1], [2, 2, 2])
    mean = sum(wanted) / 3
    assert KL(mean - 1e-3).verify(case).accepted.item()
    accepted, tokens = KL(mean + 1e-3, partial=True).verify(case)
    assert (accepted.item(), tokens.tolist()) == (False, [[2, 2, 1]])


def test_the_share_that_agrees_must_reach_the_threshold():
    rows = [[0.5, 0.3, 0.2]] * 4
    case = proposal(rows, rows, [0, 1, 2, 0], [0, 1, 1, 1])
    for threshold, accepted in ((0.5, True), (0.51, False)):
        assert Coupled(threshold).verify(case).accepted.item() is accepted  # two of four are the target's own
        assert TopK(threshold, k=1).verify(case).accepted.item() is accepted  # two of four are the likeliest
    assert TopK(0.75, k=2).verify(case).accepted.item()
    assert not TopK(0.76, k=2).verify(case).accepted.item()


def test_a_token_is_kept_by_the_ratio_of_its_two_probabilities(monkeypatch):
    q, p = [0.6, 0.3, 0.1], [0.15, 0.35, 0.5]
    monkeypatch.setattr(Proposal, "gumbel", lambda self, stream, positions, vocab: torch.zeros(1, positions, vocab))
    case = proposal([q] * 3, [p] * 3, [0, 1, 2])
    for uniform, kept in ((0.24, [True] * 3), (0.26, [False, True, True])):  # 0.15 / 0.6 = 0.25
        monkeypatch.setattr(Proposal, "log_uniform", lambda *_, u=uniform: torch.full((1, 3), math.log(u)))
        accepted, tokens = Rejection().verify(case)
        assert accepted.item() is all(kept)
        # max(p - q, 0) = 0, 0.05, 0.4: without noise the likeliest of these is drawn
        assert tokens.tolist() == [[token if keep else 2 for token, keep in zip([0, 1, 2], kept, strict=True)]]


def test_reports_that_differ_in_everything_add_up():
    first = DecodeReport(
        3,
        2,
        (Round(images=(0, 1), first=0, drafted=2, accepted=(1, 2), kept=(2, 3), draft_tokens=5, target_tokens=14),),
        seconds={"wall": 1.5, "draft": 0.25},
        margin=0.4,
    )
    second = DecodeReport(
        3,
        1,
        (
            Round(images=(0,), first=0, drafted=1, accepted=(1,), kept=(2,), draft_tokens=1, target_tokens=5),
            Round(images=(0,), first=2, drafted=0, accepted=(0,), kept=(1,), draft_tokens=0, target_tokens=9),
        ),
        seconds={},
        margin=0.1,
    )
    third = DecodeReport(
        3,
        3,
        (
            Round(
                images=(0, 2),
                first=1,
                drafted=1,
                accepted=(0, 1),
                kept=(1, 2),
                draft_tokens=4,
                target_tokens=13,
                verified=False,
            ),
        ),
        seconds={"wall": 2.0, "vae": 3.0},
    )
    merged = first + second + third
    assert (merged.images, merged.margin) == (6, 0.1)
    assert (second + first).margin == 0.1
    assert merged.seconds == {"wall": 3.5, "draft": 0.25, "vae": 3.0}
    assert [entry.images for entry in merged.rounds] == [(0, 1), (2,), (2,), (3, 5)]
    assert merged.target_calls_by_image.tolist() == [1, 1, 2, 1, 0, 1]
    assert merged.draft_calls == 7
    assert (merged.target_tokens, merged.draft_tokens) == (28 + 5 + 9 + 26, 10 + 1 + 8)
    assert merged.target_passes == 4
    assert merged.verified_by_scale.tolist() == [3, 2, 0]
    assert merged.accepted_by_scale.tolist() == [3, 1, 0]
    totals = merged.totals()
    assert [totals[f"seconds/{part}"] for part in ("wall", "draft", "target", "sampling", "vae")] == [
        3.5,
        0.25,
        0,
        0,
        3,
    ]
    assert (totals["images"], totals["accepted_scales"], totals["verified/scale_1"]) == (6, 4, 2)


def test_the_running_rate_of_acceptance_by_hand():
    policy = AdaptiveGamma(low=2, high=9, confidence=0.4, start=0.6, memory=0.5)
    # log 0.4 / log 0.6 = 1.79, below the least
    assert policy.choose(0) == 2
    policy.update(3, [4, 3], [4, 2])
    assert (policy.rate.accepted, policy.rate.verified) == pytest.approx((0.5 * 0.6 + 6, 0.5 * 1 + 7))
    policy.update(0, [2], [2])
    assert policy.rate.value == pytest.approx((0.5 * 6.3 + 2) / (0.5 * 7.5 + 2))
    # log 0.4 / log 0.8957 = 8.3
    assert policy.choose(0) == 8
    policy.update(0, [0, 0], [0, 0])  # nothing was verified: nothing is learned
    assert policy.choose(0) == 8
    policy.update(0, [100], [99])
    assert policy.choose(0) == 9
    policy.reset()
    assert (policy.rate.value, policy.choose(0)) == (0.6, 2)


def test_scales_have_rates_of_their_own():
    policy = CostGamma(Costs((0.1,) * 3, (1.0,) * 3), start=0.5, memory=0.8)
    policy.update(1, [4, 0], [1, 0])
    assert policy._rate(1).value == pytest.approx((0.8 * 0.5 + 1) / (0.8 + 4))
    assert [policy._rate(k).value for k in (0, 2)] == [0.5, 0.5]


def test_what_calls_cost_by_hand():
    costs = Costs((0.1, 0.2, 0.4), (1.0, 1.5, 2.5), 0.75)
    assert costs.call(1, 1) == pytest.approx(1.5)
    assert costs.call(0, 2) == pytest.approx(5.0 - 2 * 0.75)
    # of the last scale 2.5; of the two last: alone 1.5 + 2.5, or drafted 0.2 + 3.25 + (1 - 0.3) * 2.5
    gammas, seconds = costs.plan([0.9, 0.3, 0.5])
    alone = 1.5 + 2.5
    assert alone < 0.2 + 3.25 + 0.7 * 2.5
    one = 0.1 + 1.75 + 0.1 * alone + 0.9 * 2.5
    two = 0.1 + 0.2 + 3.5 + 0.1 * alone + 0.9 * 0.7 * 2.5
    assert one < two
    assert (gammas, seconds) == ([1, 0, 0], pytest.approx(one))
    gammas, seconds = costs.plan([0.9, 0.3, 0.5], low=2)
    assert gammas == [2, 1, 0]
    assert seconds == pytest.approx(0.3 + 3.5 + 0.1 * (0.2 + 3.25 + 0.7 * 2.5) + 0.9 * 0.7 * 2.5)
    assert costs.plan([0.9, 0.9, 0.9], high=1)[0] == [1, 1, 0]


def test_the_lead_of_the_drawn_tokens():
    logits = torch.tensor([[[1.0, 0.5, -2.0], [0.0, 3.0, 2.0]], [[9.0, 1.0, 0.0], [1.0, 1.5, 1.25]]])
    noise = torch.tensor([[[0.0, 1.0, 0.0], [0.5, 0.0, 0.25]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]])
    assert DrawnScale(logits, logits, noise, logits.argmax(-1)).lead().tolist() == [0.5, 0.25]
    alone = torch.zeros(2, 3, 1)
    assert DrawnScale(alone, alone, alone, alone[..., 0].long()).lead().tolist() == [float("inf")] * 2


def test_the_rounds_of_a_hand_over_by_hand():
    """Scales of 1, 4 and 9 tokens; the target's first call reads all that the draft made, and makes one scale."""
    draft, target = pair(patch_nums=(1, 2, 3))
    rounds = {
        entry: CollaborativeDecoding(draft, target, entry_num=entry).decode([0, 1], seed=0).report.rounds
        for entry in (1, 2, 3)
    }
    both = {"images": (0, 1), "verified": False}
    none = {"drafted": 0, "accepted": (0, 0), "kept": (1, 1), "draft_tokens": 0}
    one = Round(first=0, drafted=1, accepted=(1, 1), kept=(2, 2), draft_tokens=1, target_tokens=5, **both)
    assert rounds[1] == (one, Round(first=2, target_tokens=9, **none, **both))
    two = Round(first=0, drafted=2, accepted=(2, 2), kept=(3, 3), draft_tokens=5, target_tokens=14, **both)
    assert rounds[2] == (two,)
    whole = Round(first=0, drafted=3, accepted=(3, 3), kept=(3, 3), draft_tokens=14, target_tokens=0, **both)
    assert rounds[3] == (whole,)


def test_the_best_scale_to_hand_over_at_by_hand():
    # at 1: 0.1 and both scales in one call, then the third; at 2: 0.6 and all in one call; at 3: 0.6 + 4
    costs = Costs((0.1, 0.5, 4.0), (1.0, 1.5, 2.5), 0.2)
    seconds = {0: 5.0, 1: 0.1 + 2.3 + 2.5, 2: 0.6 + 4.6, 3: 4.6}
    assert (costs.entry_num(), costs.entry_num(high=3), costs.entry_num(0, 2)) == (1, 3, 1)
    assert min(seconds, key=lambda entry: seconds[entry]) == 3
    assert Costs((1.0, 0.5, 4.0), (1.0, 1.5, 2.5), 0.2).entry_num(0) == 0


def test_options_at_the_edge():
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="confidence must be above 0 and below 1"):
            AdaptiveGamma(confidence=confidence)
    for share in (0.0, 1.0):
        AdaptiveGamma(start=share, memory=share)
        CostGamma(start=share, memory=share)
        Coupled(share)
    assert Coupled().lossless and not Coupled(0.999).lossless  # noqa: PT018


def test_the_clock_adds_up_its_parts(monkeypatch):
    ticks = iter([10.0, 11.0, 13.0, 20.0, 24.5, 30.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    watch = Stopwatch(torch.device("cpu"), profile=False)
    with watch.whole():
        for _ in range(2):
            with watch.part("draft"):
                pass
    assert watch.seconds == {"draft": 2.0 + 4.5, "wall": 20.0}


def test_measured_costs_hold_the_calls_alone(monkeypatch):
    """Opening a network takes 100 s here; a call 2 s, and each of its tokens 1 s of the draft, 5 of the target."""
    draft, target = pair(patch_nums=(1, 2, 3))
    clock = [0.0]
    opened = NetworkState.open.__func__

    def slow_open(cls, *arguments):
        clock[0] += 100
        return opened(cls, *arguments)

    def read(self, f_hats, mask=None):
        before = self.cache.length
        made = whole(self, f_hats, mask)
        clock[0] += 2 + (self.cache.length - before) * (1 if self.model is draft else 5)
        return made

    whole = NetworkState.read
    monkeypatch.setattr(NetworkState, "open", classmethod(slow_open))
    monkeypatch.setattr(NetworkState, "read", read)
    monkeypatch.setattr(Stopwatch, "now", lambda self: clock[0])
    costs = Costs.measure(draft, target, repeats=2)
    assert costs.draft == (3, 6, 11)
    assert costs.target == (7, 22, 47)
    assert costs.overhead == (7 + 22 + 47 - (2 + 14 * 5)) / 2
