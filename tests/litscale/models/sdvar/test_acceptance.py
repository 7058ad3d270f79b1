"""Acceptance rules: distributions, agreement, options."""

import itertools
from functools import partial

import pytest
import torch
from sdvar_toys import blurred, transformer, vqvae

from litscale.models.sdvar import KL, Coupled, Forced, Proposal, Rejection, Speculative, TopK
from litscale.models.sdvar.state import DrawnScale
from litscale.models.var import VARGeneration, gumbel_noise
from litscale.models.var.generate import gumbel_max

V, DRAWS = 3, 20_000


@pytest.fixture(scope="module")
def tiny():
    """Three codes, 1 + 4 + 9 tokens; without pictures, which would take most of the time."""
    tokenizer = vqvae((1, 2, 3), V, multipliers=(1,))
    tokenizer.decode = lambda f_hat: f_hat
    target = transformer(tokenizer, std=0.35, depth=1, width=16)
    return blurred(target, 0.15, depth=1, width=16), target


@torch.no_grad()
def exact(target, options):
    """Probability of each outcome of scales 0 and 1 and of the first token of scale 2, ``[V, V ** 4, V]``."""
    first = torch.arange(V).repeat_interleave(V**4)[:, None]
    second = torch.tensor(list(itertools.product(range(V), repeat=4))).repeat(V, 1)
    inputs = target.vqvae.quantizer.teacher_input([first, second])
    labels = torch.zeros(len(first), dtype=torch.long)
    raw = target(labels, inputs)
    if options.cfg:
        raw = torch.cat([raw, target(None, inputs)])
    parts = raw.double().split([1, 4, 9], dim=1)
    p = [options.at(k).logits(part, target.progress(k)).softmax(-1) for k, part in enumerate(parts)]
    joint = p[0].gather(-1, first[..., None])[:, 0] * p[1].gather(-1, second[..., None])[..., 0].prod(1, keepdim=True)
    return (joint * p[2][:, 0]).view(V, V**4, V)


def counts(decoder, options, seed):
    """How often each of these outcomes is drawn."""
    tokens = [[], [], []]
    for part in torch.arange(DRAWS).split(5000):
        made = decoder.decode([0] * len(part), options, seed, image_index=part)
        for k, drawn in enumerate(made.tokens):
            tokens[k].append(drawn)
    first, second, third = (torch.cat(drawn) for drawn in tokens)
    weights = V ** torch.arange(3, -1, -1)
    index = (first[:, 0] * V**4 + (second * weights).sum(1)) * V + third[:, 0]
    return index.bincount(minlength=V**6).view(V, V**4, V).double()


def deviation(observed, probability):
    """Chi-square statistic in standard deviations from its mean; rare outcomes are pooled."""
    expected = (probability * DRAWS).flatten()
    assert observed.flatten()[expected == 0].sum() == 0
    rare = expected < 5
    pooled = [torch.cat([x.flatten()[~rare], x.flatten()[rare].sum()[None]]) for x in (observed, expected)]
    observed, expected = (x[pooled[1] > 0] for x in pooled)
    freedom = len(expected) - 1
    assert freedom > 30
    return (((observed - expected).square() / expected).sum() - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("options", "seed", "arguments"),
    [
        (VARGeneration(cfg=0), 1, {"gamma": 2}),
        pytest.param(VARGeneration(cfg=0), 1, {"gamma": 1}, marks=pytest.mark.slow),
        (VARGeneration(cfg=0), 2, {"gamma": 2, "ragged": False}),
        (VARGeneration(cfg=1.5, top_k=2), 3, {"gamma": 2}),
    ],
    ids=str,
)
def test_rejection_draws_from_the_target(tiny, options, seed, arguments):
    decoder = Speculative(*tiny, acceptance=Rejection(), **arguments)
    assert deviation(counts(decoder, options, seed), exact(tiny[1], options)) < 3.5


@pytest.mark.slow
def test_the_same_test_tells_other_rules_apart(tiny):
    options = VARGeneration(cfg=0)
    probability = exact(tiny[1], options)
    assert deviation(counts(Speculative(*tiny, acceptance=Coupled()), options, 1), probability) < 3.5
    for rule in (TopK(), TopK(k=2), KL()):
        assert deviation(counts(Speculative(*tiny, acceptance=rule), options, 1), probability) > 20


def proposal(images=400, positions=6, vocab=8, seed=0, share=0.5):
    """A drafted scale of random logits that agree somewhat."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(images, positions, vocab, generator=generator)
    draft = target + share * torch.randn(images, positions, vocab, generator=generator)
    noise = gumbel_noise(seed, torch.arange(images), 1, torch.arange(positions), vocab)
    drawn = [DrawnScale(logits, logits, noise, gumbel_max(logits, noise)) for logits in (draft, target)]
    return Proposal(*drawn, seed, torch.arange(images), 1)


@pytest.mark.parametrize("kind", [TopK, partial(TopK, k=3), KL, Coupled])
@pytest.mark.parametrize("keep", [False, True])
def test_a_lower_threshold_accepts_what_a_higher_one_accepts(kind, keep):
    case = proposal()
    before = torch.ones(400, dtype=torch.bool)
    for threshold in (0, 0.2, 0.4, 0.5, 0.7, 0.9, 1):
        accepted, tokens = kind(threshold, keep).verify(case)
        assert not (accepted & ~before).any()
        assert torch.equal(tokens[accepted], case.draft.tokens[accepted])
        before = accepted
    assert kind(0).verify(case).accepted.all()
    assert not before.all()


def test_agreement_by_hand():
    logits = torch.tensor([[[3.0, 2.0, 1.0, float("-inf")]] * 4])
    tokens = torch.tensor([[0, 1, 2, 3]])
    half = torch.tensor([0.5, 0.25, 0.25, 0.0]).log().expand(1, 4, 4)
    drafted = DrawnScale(half, half, torch.zeros(1, 4, 4), tokens)
    wanted = DrawnScale(logits, logits, torch.zeros(1, 4, 4), torch.zeros(1, 4, dtype=torch.long))
    case = Proposal(drafted, wanted, 0, torch.arange(1), 0)
    assert TopK(k=1).agreement(case).tolist() == [[True, False, False, False]]
    assert TopK(k=2).agreement(case).tolist() == [[True, True, False, False]]
    assert TopK(k=4).agreement(case).tolist() == [[True, True, True, False]]  # a removed token never agrees
    assert TopK(0.5, k=2).verify(case).accepted.item()
    accepted, kept = TopK(0.6, partial=True, k=2).verify(case)
    assert (accepted.item(), kept.tolist()) == (False, [[0, 1, 0, 0]])
    assert TopK(0.6, k=2).verify(case).tokens.tolist() == [[0, 0, 0, 0]]

    quarter = torch.full((1, 4, 4), 0.25).log()
    uneven = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(1, 4, 4)
    drafted, wanted = (DrawnScale(logits, logits, quarter, tokens) for logits in (quarter, uneven))
    nats = 0.5 * torch.tensor(2.0).log() + 0.25 * torch.tensor(0.5).log()
    for first, expected in ((drafted, -nats), (wanted, torch.tensor(0.0))):
        case = Proposal(first, wanted, 0, torch.arange(1), 0)
        torch.testing.assert_close(KL().agreement(case), expected.exp().expand(1, 4))


def test_rejection_keeps_the_share_that_both_distributions_hold_in_common():
    case = proposal(images=20_000, positions=1)
    p, q = (drawn.logits.softmax(-1) for drawn in (case.target, case.draft))
    accepted, tokens = Rejection().verify(case)
    overlap = torch.minimum(p, q).sum(-1).mean()
    assert abs(accepted.float().mean() - overlap) < 0.01
    assert torch.equal(tokens[accepted], case.draft.tokens[accepted])
    redrawn = tokens[~accepted]
    assert (p - q).gather(-1, tokens[..., None])[~accepted].min() > 0
    assert not torch.equal(redrawn, case.target.tokens[~accepted])


@pytest.mark.parametrize("seed", range(4))
def test_rejection_turns_draws_of_the_draft_into_draws_of_the_target(seed):
    images, vocab = torch.arange(DRAWS), 6
    generator = torch.Generator().manual_seed(seed)
    noise = gumbel_noise(seed, images, 1, torch.arange(1), vocab)
    target, draft = 1.5 * torch.randn(2, 1, 1, vocab, generator=generator)
    drawn = [DrawnScale(x, x.expand(DRAWS, 1, vocab), noise, gumbel_max(x, noise)) for x in (draft, target)]
    expected = target.softmax(-1).flatten() * DRAWS
    tokens = Rejection().verify(Proposal(*drawn, seed, images, 1)).tokens
    statistics = [
        ((made.flatten().bincount(minlength=vocab) - expected).square() / expected).sum()
        for made in (tokens, drawn[0].tokens)
    ]
    assert statistics[0] < 20.5  # 5 degrees of freedom, p = 0.001
    assert statistics[1] > 1000


def test_rejection_of_a_draft_that_is_the_target_keeps_everything():
    accepted, tokens = Rejection().verify(case := proposal(share=0.0))
    assert accepted.all()
    assert torch.equal(tokens, case.draft.tokens)


def test_the_forced_rate_is_met_and_nested():
    case = proposal(images=20_000, positions=2)
    before = torch.zeros(20_000, dtype=torch.bool)
    for rate in (0.0, 0.3, 0.8, 1.0):
        accepted = Forced(rate).verify(case).accepted
        assert abs(accepted.float().mean() - rate) < 0.015
        assert not (before & ~accepted).any()
        before = accepted


def test_which_rules_are_lossless():
    assert [rule.lossless for rule in (TopK(), TopK(k=5), KL(), Rejection(), Coupled())] == [False] * 3 + [True] * 2
    assert not Coupled(0.9).lossless


def test_rules_say_what_they_are():
    assert [str(rule) for rule in (Coupled(), Rejection(), TopK(k=5), KL(0.8), TopK(0.2, partial=True))] == [
        "Coupled",
        "Rejection",
        "TopK, k 5",
        "KL, threshold 0.8",
        "TopK, threshold 0.2, partial True",
    ]
    assert str(Forced(0.5)) == "Forced, rate 0.5"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopK(1.5), r"threshold must be in 0..1, not 1.5"),
        (lambda: KL(-0.1), r"threshold must be in 0..1, not -0.1"),
        (lambda: Coupled(2), r"threshold must be in 0..1, not 2"),
        (lambda: TopK(k=0), "k must be at least 1, not 0"),
        (lambda: Forced(1.1), r"rate must be in 0..1, not 1.1"),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()
