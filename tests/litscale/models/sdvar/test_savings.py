"""Decoders that save arithmetic: the small network makes late scales, guidance ends early; tokens and operations."""

from dataclasses import replace

import pytest
import torch
from sdvar_toys import LABELS, pair, same
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from litscale.models.sdvar import CollaborativeDecoding, DraftOnly, Refine, Speculative, TargetOnly
from litscale.models.var import NetworkState, Pruning, VARGeneration, generate
from litscale.models.var.pruning import PrunedPass

COUNTS = (1, 4, 9, 16)  # tokens of the scales
PLAIN = VARGeneration(cfg=1.5)
PRUNED = VARGeneration(cfg=1.5, prune=Pruning(2, (0.5, 0.25)))


@pytest.fixture(scope="module")
def models():
    """Pair of four scales that agrees on some of them; the draft is the smaller one."""
    return pair(0.04, depth=1)[0], pair(0.04)[1]


@pytest.mark.parametrize("large", [1, 2, 3])
def test_the_small_network_continues_the_large_one(models, large):
    draft, target = models
    opened = generate(target, LABELS, seed=7).tokens
    known = [torch.full_like(tokens, k < large, dtype=torch.bool) for k, tokens in enumerate(opened)]
    expected = generate(draft, LABELS, seed=7, tokens=opened, known=known)
    made = Refine(draft, target, large_scales=large).decode(LABELS, seed=7)
    assert same(made.tokens, expected.tokens)
    torch.testing.assert_close(made.images, expected.images, atol=1e-5, rtol=0)
    report = made.report
    assert report.target_calls_by_image.tolist() == [large] * 5
    assert report.draft_calls == (4 - large) * 5
    assert (report.target_tokens, report.draft_tokens) == (5 * sum(COUNTS[:large]), 5 * 30)
    assert report.text().splitlines()[2] == "image 0: " + " | ".join(["t"] * large + ["d" * (4 - large)])
    # guidance computes each token twice; the small network reads the large one's scales in one pass
    assert report.target_computed_tokens == 2 * report.target_tokens
    assert report.draft_computed_tokens == 2 * report.draft_tokens
    spans = [(each.role, each.first, each.scales) for each in report.passes]
    assert spans[large:] == [("draft", 0, large + 1), *(("draft", k, 1) for k in range(large + 1, 4))]


def test_the_ends_of_refinement_are_the_networks_alone(models):
    for large, alone in ((4, TargetOnly(models[1])), (0, DraftOnly(models[0]))):
        decoder = Refine(*models, large_scales=large)
        made, expected = (each.decode(LABELS, PLAIN, seed=3) for each in (decoder, alone))
        assert same(made.tokens, expected.tokens)
        assert str(decoder) == str(alone)
        for name in ("target_calls", "draft_calls", "target_computed_tokens", "draft_computed_tokens", "flops"):
            assert getattr(made.report, name) == getattr(expected.report, name), name
    with pytest.raises(ValueError, match=r"large_scales must be in 0..4, the number of scales, not 5"):
        Refine(*models, large_scales=5)


@pytest.mark.parametrize("options", [PLAIN, replace(PLAIN, cfg_until=2), replace(PLAIN, cfg=0.0), PRUNED])
def test_operations_are_those_that_torch_counts(models, options, monkeypatch):
    draft, target = models
    counted = []
    for model in models:

        def extend(*arguments, original=model.extend, **options):
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                made = original(*arguments, **options)
            counted.append(counter.get_total_flops())
            return made

        monkeypatch.setattr(model, "extend", extend)
    for large in (4, 3):
        counted.clear()
        report = Refine(draft, target, large_scales=large).decode(LABELS, options, seed=1).report
        ours = [each.flops * each.images for each in report.passes]
        # a mask lets torch compute what is masked, too, where several scales are read in one pass
        assert ours[:large] == counted[:large]
        assert len(ours) == len(counted)
        assert all(own <= other < 1.1 * own for own, other in zip(ours[large:], counted[large:], strict=True))
        assert report.flops == sum(ours)


@pytest.mark.parametrize("until", [0, 1, 2, 3])
@pytest.mark.parametrize("large", [1, 4])
def test_late_scales_are_drawn_without_guidance(models, until, large):
    options = replace(PLAIN, cfg_until=until)
    made = Refine(*models, large_scales=large).decode(LABELS, options, seed=2)
    # the same with the scales before known, each drawn by one network with options of its own
    tokens = [torch.zeros(5, n, dtype=torch.long) for n in COUNTS]
    for k in range(4):
        known = [torch.full_like(each, j < k, dtype=torch.bool) for j, each in enumerate(tokens)]
        model = models[1] if k < large else models[0]
        drawn = PLAIN if k < until else replace(PLAIN, cfg=0.0)
        tokens[k] = generate(model, LABELS, drawn, seed=2, tokens=tokens, known=known).tokens[k]
    assert same(made.tokens, tokens)
    guided = sum(COUNTS[:until])
    if large == 4:
        assert same(made.tokens, generate(models[1], LABELS, options, seed=2).tokens)
        assert made.report.target_computed_tokens == 5 * (30 + guided)
    else:
        # in a pass that begins with a guided scale all scales have both rows, and none at all after the last of them
        expected = 30 + (sum(COUNTS[: max(until, 2)]) if until > 1 else 0)
        assert made.report.draft_computed_tokens == 5 * expected


def test_guidance_to_the_last_scale_is_plain_guidance(models):
    for decoder in (TargetOnly(models[1]), Refine(*models, large_scales=2), Speculative(*models, gamma=2)):
        plain, until = (decoder.decode(LABELS, replace(PLAIN, cfg_until=k), seed=3) for k in (None, 4))
        assert same(plain.tokens, until.tokens)
        assert plain.report.passes == until.report.passes
    with pytest.raises(ValueError, match="cfg_until must not be negative, not -1"):
        VARGeneration(cfg_until=-1)


@pytest.mark.parametrize("until", [1, 2, 3])
@pytest.mark.parametrize("by_scale", [{}, {"top_k": (0, 0, 3, 1), "top_p": (0.0, 0.9), "temperature": (1.0, 0.7)}])
def test_speculation_with_other_options_at_late_scales_gives_the_tokens_of_the_target(models, until, by_scale):
    options = replace(PLAIN, cfg_until=until, **by_scale)
    expected = TargetOnly(models[1]).decode(LABELS, options, seed=4)
    for gamma in (1, 2, 3):
        made = Speculative(*models, gamma=gamma).decode(LABELS, options, seed=4)
        assert made.report.margin > 1e-4
        assert same(made.tokens, expected.tokens)
        if not by_scale:
            plain = Speculative(*models, gamma=gamma).decode(LABELS, PLAIN, seed=4).report
            assert made.report.target_computed_tokens < plain.target_computed_tokens


def savings(models):
    """Every way to save arithmetic, alone and together."""
    until = replace(PLAIN, cfg_until=2)
    return [
        (TargetOnly(models[1]), until),
        (Refine(*models, large_scales=2), PLAIN),
        (Refine(*models, large_scales=3), until),
        (TargetOnly(models[1]), PRUNED),
        (Refine(*models, large_scales=3), replace(PRUNED, cfg_until=2)),
        (Speculative(*models, gamma=2), until),
        (Refine(*models, large_scales=2), replace(until, top_k=(0, 0, 1), temperature=(1.0, 0.5))),
    ]


def test_a_sample_is_the_same_alone_and_in_any_batch(models):
    for decoder, options in savings(models):
        together = decoder.decode(LABELS, options, seed=5).tokens
        for rows in ([0], [3, 1], [4, 2, 0]):
            labels = [LABELS[row] for row in rows]
            some = decoder.decode(labels, options, seed=5, image_index=torch.tensor(rows)).tokens
            assert same(some, [tokens[rows] for tokens in together]), str(decoder)


def test_unconditional_rows_are_freed(models):
    """Where no later scale is guided, caches hold one row for each image."""
    state = NetworkState.open(models[1], torch.zeros(3, dtype=torch.long), replace(PLAIN, cfg_until=1))
    start = models[1].vqvae.quantizer.start(3)
    for k, rows in enumerate((6, 3, 3)):
        state.settle(k)
        (raw,) = state.read([start])
        assert len(raw) == rows
        assert len(state.cache.layers[0].held()[0]) == rows


def test_all_tokens_of_pruned_scales_are_the_plain_ones(models):
    whole = replace(PLAIN, prune=Pruning(1, (1.0,)))
    for decoder in (TargetOnly(models[1]), Refine(*models, large_scales=2)):
        plain, pruned = (decoder.decode(LABELS, options, seed=3) for options in (PLAIN, whole))
        assert same(plain.tokens, pruned.tokens)
        assert plain.report.passes == pruned.report.passes


def test_pruned_tokens_take_what_the_scale_before_gave(models):
    """By hand: a branch that counts its calls, on a scale of four tokens after one of one token."""
    sides, counts, features = (1, 2), (1, 2), {}
    x = torch.tensor([[[5.0], [1.25], [9.0], [1.5], [1.0]], [[2.0], [3.0], [0.125], [0.5], [0.0]]])
    read = []

    def tenfold(part):
        read.append(part[..., 0].tolist())
        return 10 * part

    made = PrunedPass(sides, counts, features).branch("a", x, tenfold)
    # the means are 3.19 and 0.91: 9 and 1 deviate most in the first row, 3 and 0 in the second
    assert read == [[[5.0, 9.0, 1.0], [2.0, 3.0, 0.0]]]
    assert made[..., 0].tolist() == [[50.0, 50.0, 90.0, 50.0, 10.0], [20.0, 30.0, 20.0, 20.0, 0.0]]
    # the next scale is restored from this one, as it was restored itself
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, 40.0, 5.0, 6.0, 7.0, 8.0]).expand(2, 9)[..., None]
    again = PrunedPass((3,), (1,), features).branch("a", x, tenfold)[..., 0]
    assert read[1] == [[40.0], [40.0]]
    expected = torch.nn.functional.interpolate(made[:, 1:].reshape(2, 1, 2, 2), size=(3, 3), mode="area").flatten(1)
    expected[:, 4] = 400.0
    torch.testing.assert_close(again, expected)


def test_pruned_tokens_are_counted_and_have_no_keys(models):
    report = TargetOnly(models[1]).decode(LABELS, PRUNED, seed=3).report
    assert [each.tokens for each in report.passes] == [2, 8, 2 * 4, 2 * 4]
    assert PRUNED.counts((1, 4, 9, 16, 25)) == [1, 4, 4, 4, 6]
    refined = Refine(*models, large_scales=3).decode(LABELS, PRUNED, seed=3).report
    assert [(each.role, each.tokens) for each in refined.passes[3:]] == [("draft", 2 * (1 + 4 + 4 + 4))]


def test_bad_pruning(models):
    for arguments, message in (
        ((0, (0.5,)), "from_scale must be at least 1, not 0"),
        ((1, ()), r"ratios must be above 0 and at most 1, not \[\]"),
        ((1, (0.5, 1.5)), r"ratios must be above 0 and at most 1, not \[0.5, 1.5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Pruning(*arguments)
    with pytest.raises(ValueError, match="Speculative verifies all tokens of several scales at once: make prune null"):
        Speculative(*models).decode(LABELS, PRUNED, seed=0)
    masked = CollaborativeDecoding(*models, entry_num=2, mask="none")
    with pytest.raises(ValueError, match="a mask cannot be given for pruned tokens"):
        masked.decode(LABELS, PRUNED, seed=0)
