"""MAR levels: masks, schedules, orders."""

import itertools
import math
from collections import Counter
from itertools import pairwise, permutations

import pytest
import torch

from litscale.models.fractal import Fractal, Generation, generate, generation_recursion
from litscale.models.fractal.generator import GeneratorConfig
from litscale.models.fractal.mar import MAR
from litscale.models.fractal.masking import (
    Masking,
    generation_order,
    generation_queue,
    masking_schedule,
    training_counts,
)
from litscale.models.keyed import numbers
from litscale.models.layers.blocks import StackConfig


@pytest.fixture
def mar_model(stir):
    """Build a model of MAR levels only."""
    return lambda *args, **options: stir(_mar_model(*args, **options))


def _mar_model(sizes=((8, 8), (4, 4), (1, 1)), **options):
    torch.manual_seed(0)
    depth = len(sizes) - 1
    return Fractal(
        sizes, ["mar"] * depth, [16] * (depth + 1), [2] * (depth + 1), [2] * (depth + 1), codec="binary", **options
    )


@torch.no_grad()
def test_hidden_patches_are_not_seen(stir):
    torch.manual_seed(0)
    generator = stir(MAR(GeneratorConfig(12, (4, 4), StackConfig(16, 2, 2), 1, 8)))
    patches, condition = torch.randn(2, 16, 12), torch.randn(2, 1, 8)
    hidden = torch.ones(2, 16, dtype=torch.bool)
    all_hidden = generator(patches, condition, (4, 4), mask=hidden)
    assert torch.equal(all_hidden, generator(torch.randn(2, 16, 12), condition, (4, 4), mask=hidden))
    hidden[:, 3] = False
    other = patches.clone()
    other[:, 3] += 1
    assert not torch.equal(
        generator(patches, condition, (4, 4), mask=hidden), generator(other, condition, (4, 4), mask=hidden)
    )


def test_the_share_of_hidden_patches_is_a_truncated_normal():
    torch.manual_seed(0)
    drawn = torch.tensor(training_counts(200_000, 10_000)) / 10_000
    # mean of a normal(1, 0.25) truncated to [0, 1]: mu - sigma * phi(0) / (Phi(0) - Phi(-4)), up to the far tail
    assert drawn.mean().item() == pytest.approx(1 - 0.25 * math.sqrt(2 / math.pi), abs=2e-3)
    assert 0 <= drawn.min() < 0.2
    assert drawn.max() <= 1


def test_likelihood_counts_are_uniform_and_weighed():
    torch.manual_seed(0)
    mask, weight, total = Masking("likelihood")(60_000, 6, torch.device("cpu"))
    counts = mask.sum(1)
    assert total == counts.sum()
    assert torch.allclose(weight, 6 / counts)
    frequency = torch.bincount(counts, minlength=7)[1:] / 60_000
    assert torch.allclose(frequency, torch.full((6,), 1 / 6), atol=0.01)
    assert torch.allclose(mask[counts == 2].float().mean(0), torch.full((6,), 1 / 3), atol=0.02)


def test_strata_cover_the_counts_once():
    parts = [Masking("likelihood", stratum=(i, 8))(3, 8, torch.device("cpu"))[0].sum(1) for i in range(8)]
    assert torch.equal(torch.stack(parts), torch.arange(1, 9)[:, None].expand(8, 3))


def test_strata_keep_the_mean_and_lower_the_variance():
    torch.manual_seed(0)

    def mean_square(strata):
        counts = [Masking("likelihood", stratum=part)(5000, 20, torch.device("cpu"))[0].sum(1) for part in strata]
        return torch.stack(counts).float().square().mean(0)

    alone, stratified = mean_square([(0, 1)] * 8), mean_square([(i, 8) for i in range(8)])
    exact = torch.arange(1, 21).float().square().mean()
    assert stratified.mean() == pytest.approx(exact.item(), rel=0.01)
    assert stratified.var() < 0.05 * alone.var()


@pytest.mark.parametrize("patches", [1, 2, 5, 16, 64, 256])
@pytest.mark.parametrize("iterations", [1, 3, 8, 64])
def test_masking_schedule(patches, iterations):
    remaining = masking_schedule([patches, 0, max(1, patches // 2)], iterations)
    assert remaining[0].tolist() == [patches, 0, max(1, patches // 2)]
    assert remaining[-1].tolist() == [0, 0, 0]
    steps = min(patches, iterations)
    assert len(remaining) == steps + 1
    assert (remaining[:-1, 0] > remaining[1:, 0]).all()
    for k in range(1, steps):
        wanted = math.floor(patches * math.cos(math.pi / 2 * k / steps))
        assert remaining[k, 0] == min(remaining[k - 1, 0] - 1, max(1, wanted))


@pytest.mark.parametrize("iterations", [1, 4, 16])
@pytest.mark.parametrize("order", ["random", "raster", "confidence"])
def test_sampled_counts_follow_the_schedule(mar_model, iterations, order):
    model = mar_model()
    done = []
    options = Generation(iterations=iterations, order=order)
    generate(model, options=options, batch_size=3, seed=0, on_step=lambda _, mask: done.append(mask.clone()))
    cells = torch.stack(done).flatten(2).sum(2) // 16
    wanted = 4 - masking_schedule([4] * 3, iterations)[1:]
    assert torch.equal(cells, wanted)


def test_each_level_has_a_schedule_of_its_own(mar_model, monkeypatch):
    kinds = []

    def spy(counts, iterations, kind):
        kinds.append((counts[0], iterations, kind))
        return masking_schedule(counts, iterations, kind)

    monkeypatch.setattr(generation_recursion, "masking_schedule", spy)
    model = mar_model(((8, 8), (4, 4), (1, 1)))
    generate(model, options=Generation(iterations=[4, 2], schedule=["linear", "cosine"]), seed=0)
    assert kinds == [(4, 4, "linear")] + [(16, 2, "cosine")] * 4
    kinds.clear()
    generate(model, options=Generation(iterations=1, schedule="linear"), seed=0)
    assert kinds == [(4, 1, "linear"), (16, 1, "linear")]


def test_raster_order_follows_the_scan(mar_model):
    seen = []
    options = Generation(iterations=4, order="raster")
    generate(mar_model(scan="column_major"), options=options, seed=0, on_step=lambda _, m: seen.append(m))
    visited = [mask[0, 0, ::4, ::4].flatten() for mask in seen]
    first = [int(now.int().sub(before.int()).argmax()) for before, now in pairwise([visited[0] * 0, *visited])]
    assert first == [0, 2, 1, 3]


def test_confidence_keeps_the_surest(mar_model):
    model = mar_model(((4, 4), (1, 1)))
    steps = []
    options = Generation(iterations=4, order="confidence")
    generate(model, options=options, seed=0, on_step=lambda c, m: steps.append((c.clone(), m.clone())))
    for (before, kept), (after, _) in pairwise(steps):
        assert torch.equal(before[kept], after[kept])


def test_partial_patches_come_first_and_known_ones_never():
    unknown = torch.tensor([[True, True, True, False, True]])
    partial = torch.tensor([[False, True, False, False, False]])
    scan = torch.arange(5)
    for seed in range(5):
        keys = numbers(torch.tensor([seed]), 5)
        queue = generation_queue(unknown, partial, generation_order("random", scan, keys))[0].tolist()
        assert (queue[0], queue[-1]) == (1, 3)
        assert sorted(queue) == [0, 1, 2, 3, 4]


def test_random_orders_are_uniform():
    keys = numbers(torch.arange(6000), 3)
    unknown = torch.ones(6000, 3, dtype=torch.bool)
    queue = generation_queue(unknown, ~unknown, generation_order("random", torch.arange(3), keys))
    counts = Counter(map(tuple, queue.tolist()))
    assert sorted(counts) == sorted(permutations(range(3)))
    assert min(counts.values()) > 900  # of 1000 expected, 3.5 standard deviations


@pytest.mark.parametrize("guiding", [False, True])
def test_guiding_gives_levels_a_loss_of_their_own(mar_model, guiding):
    model = mar_model(((8, 8), (4, 4), (2, 2), (1, 1)), guiding=guiding)
    output = model(torch.randint(0, 2, (4, 1, 8, 8), dtype=torch.uint8))
    wanted = {"leaf", "level_1", "level_2"} if guiding else {"leaf"}
    assert output.level_losses.keys() == wanted
    torch.testing.assert_close(output.loss, sum(output.level_losses.values()))
    assert output.mask_fractions.keys() == {"level_0", "level_1", "level_2"}


def test_patches_that_were_not_sure_enough_are_drawn_anew(stir):
    """Chi-square of two cells, of which the surer one is kept and the other drawn again given it."""
    torch.manual_seed(1)
    model = stir(Fractal([(1, 2), (1, 1)], ["mar"], [8, 8], [1, 1], [2, 2], codec="binary"))

    def probabilities(cells, hidden):
        """Of both cells, given those that are not hidden."""
        canvas = torch.tensor([[[cells]]], dtype=torch.uint8)
        features = model.features(canvas).flatten(2).transpose(1, 2)
        mask = torch.tensor([hidden])
        handed = model.levels[0].generator(features, model.root(canvas, None), (1, 2), mask=mask)[0]
        return model.leaf.logits(torch.zeros(2, 1, dtype=torch.long), handed)[:, 0].softmax(-1).tolist()

    wanted = dict.fromkeys(itertools.product((0, 1), repeat=2), 0.0)
    with torch.no_grad():
        left, right = probabilities([0, 0], [True, True])
        for a, b in itertools.product((0, 1), repeat=2):
            if left[a] > right[b]:
                for again, p in enumerate(probabilities([a, 0], [False, True])[1]):
                    wanted[a, again] += left[a] * right[b] * p
            else:
                for again, p in enumerate(probabilities([0, b], [True, False])[0]):
                    wanted[again, b] += left[a] * right[b] * p
    number, options = 20_000, Generation(2, order="confidence", confidence_oversampling=2)
    drawn = generate(model, batch_size=number, options=options, seed=0).flatten(1).long()
    counts = (drawn * torch.tensor([2, 1])).sum(1).bincount(minlength=4).tolist()
    assert sum(wanted.values()) == pytest.approx(1)
    chi_square = sum((n - number * p) ** 2 / (number * p) for n, p in zip(counts, wanted.values(), strict=True))
    assert chi_square < 16.3  # the 0.1 % quantile of 3 degrees of freedom
