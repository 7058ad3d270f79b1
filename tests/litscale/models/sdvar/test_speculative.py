"""Speculative decoding: exactness, calls, options."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import ceil

import pytest
import torch
from golden_var import tokenizer, transformer
from products import every_pair
from sdvar_toys import LABELS, pair, same, uniform_draft, vqvae
from sdvar_toys import transformer as random_transformer

from litscale.models.sdvar import (
    KL,
    AdaptiveGamma,
    CollaborativeDecoding,
    CostGamma,
    Costs,
    Coupled,
    Forced,
    Refine,
    Rejection,
    Speculative,
    TargetOnly,
    TopK,
)
from litscale.models.var import VARGeneration, generate

S = 4
RULES = (TopK(), TopK(k=5), KL(), Rejection(), Coupled())
FILTERS = [{}, {"top_k": 6}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.9, "temperature": 1.3}]


@pytest.fixture(scope="module")
def models():
    """About half of the scales are accepted."""
    return pair(0.04)


@pytest.fixture(scope="module")
def golden():
    """Recorded networks of different widths."""
    held = tokenizer()
    return transformer("v2", held), transformer("v0", held)


@pytest.mark.parametrize(
    ("gamma", "labels", "cfg", "options"),
    every_pair([1, 2, 3, 4, AdaptiveGamma], [[3], LABELS], [0.0, 1.5], FILTERS),
    ids=str,
)
def test_coupled_returns_the_tokens_of_the_target(models, gamma, labels, cfg, options):
    decoder = Speculative(*models, gamma=gamma if isinstance(gamma, int) else gamma(), acceptance=Coupled())
    for seed in range(2):
        expected = generate(models[1], labels, VARGeneration(cfg=cfg, **options), seed=seed)
        made = decoder.decode(labels, VARGeneration(cfg=cfg, **options), seed=seed)
        assert same(made.tokens, expected.tokens)
        torch.testing.assert_close(made.images, expected.images, atol=1e-5, rtol=0)
        assert made.report.margin > 1e-5
        assert made.report.target_calls_by_image.max() <= S


@pytest.mark.parametrize(
    "arguments",
    [{"ragged": False}, {"gamma": CostGamma(low=1)}, {"acceptance": Coupled(partial=True)}],
    ids=["minimum rule", "cost", "partial"],
)
@pytest.mark.parametrize("cfg", [0.0, 1.5])
def test_no_option_changes_what_coupled_returns(models, cfg, arguments):
    expected = generate(models[1], LABELS, VARGeneration(cfg=cfg), seed=5)
    made = Speculative(*models, **{"acceptance": Coupled()} | arguments).decode(LABELS, VARGeneration(cfg=cfg), seed=5)
    assert same(made.tokens, expected.tokens)


@pytest.mark.parametrize("gamma", [1, 3])
def test_coupled_with_networks_of_different_shapes(golden, gamma):
    for models in (golden, golden[::-1]):
        expected = generate(models[1], [3, 6, -1], seed=1)
        made = Speculative(*models, gamma=gamma).decode([3, 6, -1], seed=1)
        assert same(made.tokens, expected.tokens)
        torch.testing.assert_close(made.images, expected.images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("gamma", [1, 2, 3, 4])
def test_a_draft_that_is_the_target_is_always_right(models, rule, gamma):
    decoder = Speculative(models[1], models[1], gamma=gamma, acceptance=rule)
    top_k = 1 if rule == TopK() else 5  # whose draws are not always the likeliest
    report = decoder.decode(LABELS, VARGeneration(top_k=top_k), seed=0).report
    assert report.target_calls_by_image.tolist() == [ceil(S / (gamma + 1))] * 5
    assert torch.equal(report.accepted_by_scale, report.verified_by_scale)
    if gamma >= S - 1:
        assert report.target_passes == 1


@pytest.mark.parametrize(("rule", "gamma", "ragged"), every_pair(RULES, [1, 2, 4, AdaptiveGamma], [True, False]))
def test_an_adversary_never_takes_more_calls_than_scales(models, rule, gamma, ragged):
    target = models[1]
    policy = gamma if isinstance(gamma, int) else gamma()
    decoder = Speculative(uniform_draft(target), target, gamma=policy, acceptance=rule, ragged=ragged)
    made = decoder.decode([0] * 20, seed=0)
    assert made.report.target_calls_by_image.max() <= S
    assert made.report.target_passes <= S
    if decoder.acceptance.lossless:
        assert made.report.target_calls_by_image.float().mean() > 3
    if rule == Coupled():
        assert same(made.tokens, generate(target, [0] * 20, seed=0).tokens)


@pytest.mark.parametrize("gamma", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_higher_rates_and_lower_thresholds_never_take_more_calls(models, gamma):
    labels = [i % 5 for i in range(60)]

    def calls(**arguments):
        decoder = Speculative(*models, gamma=gamma, **arguments)
        return decoder.decode(labels, VARGeneration(cfg=0), seed=3).report.target_calls_by_image

    forced = [calls(acceptance=Forced(rate)) for rate in (1.0, 0.7, 0.4, 0.1, 0.0)]
    # a theorem for coins, which do not see the tokens; for rules that do, what is seen on these seeds
    for rule in (TopK(), TopK(k=5), KL(), Coupled()):
        series = [calls(acceptance=replace(rule, threshold=threshold)) for threshold in (0, 0.25, 0.5, 0.75, 1)]
        assert series[0].tolist() == [ceil(S / (gamma + 1))] * 60
        for fewer, more in pairwise(series):
            assert (fewer <= more).all()
        assert series[0].sum() < series[-1].sum()
    for fewer, more in pairwise(forced):
        assert (fewer <= more).all()
    assert forced[-1].tolist() == [S] * 60


@pytest.mark.parametrize("cfg", [0.0, 1.5])
@pytest.mark.parametrize("kind", [Speculative, CollaborativeDecoding])
def test_the_report_counts_what_really_ran(models, kind, cfg, monkeypatch):
    ran = {}
    for name, model in zip(("draft", "target"), models, strict=True):

        def extend(inputs, condition, cache, first, name=name, original=model.extend, **options):
            before = cache.length
            raw = original(inputs, condition, cache, first, **options)
            rows = len(raw) // (2 if cfg else 1)
            taken = (1, rows, rows * (cache.length - before))
            ran[name] = [sum(pair) for pair in zip(ran.get(name, (0, 0, 0)), taken, strict=True)]
            return raw

        monkeypatch.setattr(model, "extend", extend)
    report = kind(*models).decode(LABELS, VARGeneration(cfg=cfg), seed=1).report
    assert ran["target"] == [report.target_passes, report.target_calls, report.target_tokens]
    assert ran["draft"][1:] == [report.draft_calls, report.draft_tokens]


def test_images_of_a_batch_are_counted_as_if_alone(models):
    decoder = Speculative(*models, gamma=2)
    labels = LABELS * 3
    whole = decoder.decode(labels, seed=6)
    reports = []
    for i, label in enumerate(labels):
        alone = decoder.decode([label], seed=6, image_index=torch.tensor([i]))
        assert all(torch.equal(a[i], b[0]) for a, b in zip(whole.tokens, alone.tokens, strict=True))
        reports.append(alone.report)
    merged = sum(reports[1:], start=reports[0])
    assert len(set(merged.target_calls_by_image.tolist())) > 1
    for name in ("target_calls_by_image", "accepted_by_scale", "verified_by_scale"):
        assert torch.equal(getattr(merged, name), getattr(whole.report, name))
    assert merged.draft_calls == whole.report.draft_calls
    slowest = Speculative(*models, gamma=2, ragged=False).decode(labels, seed=6).report.target_calls_by_image
    assert (slowest >= whole.report.target_calls_by_image).all()
    assert slowest.sum() > whole.report.target_calls


def test_partial_acceptance_keeps_agreeing_tokens(models):
    draft, target = models
    drafted = generate(draft, LABELS, seed=1).tokens
    whole, part = (
        Speculative(draft, target, gamma=1, acceptance=TopK(1, partial, k=2)).decode(LABELS, seed=1)
        for partial in (False, True)
    )
    assert part.report.accepted_by_scale[0] == whole.report.accepted_by_scale[0] < 5
    agree = drafted[0] == part.tokens[0]
    assert (drafted[0] == whole.tokens[0]).sum() <= agree.sum()
    assert not same(whole.tokens, part.tokens)


ALONE = [(rule, gamma) for rule in RULES for gamma in (1, 2, 3)]
ALONE += [(Coupled(), policy) for policy in (AdaptiveGamma(), CostGamma(Costs((0.1,) * S, (1.0,) * S), low=1))]


@pytest.mark.parametrize(("rule", "gamma"), ALONE, ids=str)
def test_an_image_is_the_same_alone_and_in_any_batch(models, rule, gamma):
    decoder = Speculative(*models, gamma=gamma, acceptance=rule)
    for seed in range(3):
        whole = decoder.decode(LABELS, seed=seed).tokens
        for rows in ([0], [3, 1], [4, 2, 0]):
            labels = [LABELS[row] for row in rows]
            some = decoder.decode(labels, seed=seed, image_index=torch.tensor(rows)).tokens
            assert same(some, [tokens[rows] for tokens in whole])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_without_class_and_without_seed(models, rule):
    decoder = Speculative(*models, acceptance=rule)
    first, second = decoder.decode(None, seed=0, batch_size=2), decoder.decode([-1, -1], seed=0)
    assert same(first.tokens, second.tokens)
    assert first.images.shape == (2, 3, 8, 8)
    assert first.images.min() >= 0
    assert first.images.max() <= 1
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(decoder.decode([0, 1]).tokens)
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])


def test_decoding_in_training_mode_is_without_dropout(models):
    target = random_transformer(models[1].vqvae, dropout=0.5, drop_path=0.5, label_drop=1.0)
    target.load_state_dict(models[1].state_dict())
    target.train()
    made = Speculative(models[0], target).decode(LABELS, seed=0)
    assert same(made.tokens, generate(models[1], LABELS, seed=0).tokens)
    assert target.training
    assert not made.images.requires_grad


def test_bfloat16_is_drawn_from_the_target_and_finite(models):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for rule in RULES:
            made = Speculative(*models, acceptance=rule).decode(LABELS, seed=0)
            assert made.images.isfinite().all()
            assert made.report.target_calls_by_image.max() <= S


def test_one_scale_only():
    target = random_transformer(vqvae((4,), 16))
    made = Speculative(target, target, gamma=3).decode([0, 1], seed=0)
    assert same(made.tokens, generate(target, [0, 1], seed=0).tokens)
    assert made.report.target_calls_by_image.tolist() == [1, 1]


def test_equal_tokenizers_may_be_loaded_twice(models):
    twin = random_transformer(vqvae())
    assert twin.vqvae is not models[1].vqvae
    assert same(
        Speculative(twin, models[1], models[1].vqvae).decode([0], seed=0).tokens,
        generate(models[1], [0], seed=0).tokens,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0}, "gamma must be at least 1, not 0; TargetOnly drafts nothing"),
        ({"gamma": 1.5}, r"gamma must be a whole number of scales, not 1\.5"),
        ({"gamma": CostGamma(Costs((1.0,), (1.0,)))}, "the costs are of 1 scales, but the target has 4"),
        ({"labels": [5]}, r"labels must be in -1..4, got -?\d..5"),
        ({"labels": []}, "labels are empty; give at least one"),
        ({"labels": [1.0]}, r"labels must be integers \[B\], not torch.float32 \[1\]"),
        ({"labels": [[1]]}, r"labels must be integers \[B\], not torch.int64 \[1, 1\]"),
        ({"image_index": torch.tensor([3, 4])}, r"image_index must have the shape of labels \[1\], not \[2\]"),
        ({"options": VARGeneration(greedy=True)}, "decoders need greedy and smooth to be false: top_k 1 takes the"),
        ({"options": VARGeneration(smooth=True)}, "decoders need greedy and smooth to be false"),
    ],
)
def test_bad_options(models, arguments, message):
    options = {name: arguments[name] for name in ("labels", "options", "image_index") if name in arguments}
    with pytest.raises(ValueError, match=message):
        Speculative(*models, **{k: v for k, v in arguments.items() if k not in options}).decode(
            **{"labels": [0]} | options
        )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"patch_nums": (1, 2, 4)}, r"different patch_nums: \(1, 2, 4\) and \(1, 2, 3, 4\)"),
        ({"vocab": 8}, "different vocabularies: 8 and 16 codes"),
        ({"seed": 1}, "draft and target have different tokenizers; both must be trained with the same tokenizer"),
    ],
)
@pytest.mark.parametrize("kind", [Speculative, CollaborativeDecoding])
def test_models_that_do_not_fit_together(models, kind, other, message):
    with pytest.raises(ValueError, match=message):
        kind(random_transformer(vqvae(**other)), models[1])


@pytest.mark.parametrize("nested", [0, 1])
def test_a_decoder_is_no_network_of_another_one(models, nested):
    given = list(models)
    given[nested] = Refine(*models, large_scales=2)
    for kind in (Speculative, CollaborativeDecoding, partial(Refine, large_scales=2)):
        with pytest.raises(TypeError, match=r"draft and target of \w+ must be VAR, not Refine"):
            kind(*given)


def test_another_tokenizer(models):
    for build in (lambda held: TargetOnly(models[1], held), lambda held: Speculative(*models, held)):
        with pytest.raises(ValueError, match="vqvae is not the models' tokenizer; leave it out"):
            build(vqvae(seed=1))


def test_adaptive_gamma_changes_the_rounds_but_not_the_tokens(models):
    target = models[1]
    policy = AdaptiveGamma(start=0.0)
    decoder = Speculative(target, target, gamma=policy)
    first, second = (decoder.decode(LABELS, seed=0) for _ in range(2))
    assert first.report.rounds[0].drafted == 1
    assert second.report.rounds[0].drafted == 3
    assert same(first.tokens, second.tokens)
    policy.reset()
    assert decoder.decode(LABELS, seed=0).report.rounds == first.report.rounds


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (lambda models: Refine(*models, large_scales=2), "Refine"),
        (lambda _: Coupled, "the class Coupled"),
        (lambda _: "Coupled", "str"),
        (lambda _: None, "NoneType"),
    ],
)
def test_what_is_no_rule_is_refused_before_anything_is_decoded(models, given, name):
    with pytest.raises(
        TypeError, match=rf"^acceptance of Speculative must be an Acceptance, such as Coupled\(\), not {name}$"
    ):
        Speculative(*models, acceptance=given(models))
