"""The likelihood is a likelihood: it sums to one, and MAR's bound lies above the exact value."""

import itertools
from functools import partial

import pytest
import torch

from litscale.models.fractal import Fractal
from litscale.models.fractal.canvas import patchify
from litscale.models.fractal.masking import StepMasking

SIZES = [(2, 4), (2, 2), (1, 1)]


@pytest.fixture
def tiny(stir):
    """Build a model of 2x4 binary canvases."""

    def build(generators, sizes=SIZES, std=0.5, **options):
        torch.manual_seed(0)
        return stir(Fractal(sizes, generators, [16, 8, 8], [1, 1, 1], [2, 2, 2], codec="binary", **options), std)

    return build


def every_canvas():
    cells = torch.tensor(list(itertools.product([0, 1], repeat=8)), dtype=torch.uint8)
    return cells.reshape(-1, 1, 2, 4)


@pytest.mark.parametrize("scan", ["row_major", "column_major"])
@pytest.mark.parametrize("positions", ["learned", "rope", "both"])
def test_ar_probabilities_sum_to_one(tiny, scan, positions):
    model = tiny(["ar", "ar"], scan=scan, positions=positions)
    assert model.exact_likelihood
    probability = model.nll(every_canvas()).double().neg().exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    assert probability.std() > 1e-4


def test_ar_probabilities_with_classes_sum_to_one(tiny):
    model = tiny(["ar", "ar"], num_classes=2)
    canvas = every_canvas()
    totals = []
    for label in (-1, 0, 1):
        probability = model.nll(canvas, torch.full((256,), label)).double().neg().exp()
        assert probability.sum().item() == pytest.approx(1, abs=1e-5)
        totals.append(probability)
    assert not torch.allclose(totals[0], totals[1], rtol=1e-3)


def test_guiding_values_bound_the_likelihood(tiny):
    total = tiny(["ar", "ar"], guiding=True).nll(every_canvas()).double().neg().exp().sum().item()
    assert 0 < total < 1


@torch.no_grad()
def exact_over_orders(model, canvas, starts=(range(4), range(4))):
    """-log of the mean over all generation orders of a MAR(MAR) model's probability, and the mean of -log, by hand.

    ``starts`` are the places in an order at which the steps of each level begin; by default each patch has its own.
    """
    top, bottom = model.levels

    def paths(level, x, conditions, below, starts):
        patches = patchify(x, level.patch)[0]  # [N, C, h, w]
        features = patchify(model.features(x), level.patch).flatten(2)
        count = len(patches)
        grid = (x.shape[2] // level.patch[0], x.shape[3] // level.patch[1])
        values = []
        for order in itertools.permutations(range(count)):
            hidden = torch.ones(1, count, dtype=torch.bool)
            logs = [torch.zeros(1, dtype=torch.double)]
            for place, patch in enumerate(order):
                if place in starts:
                    seen = hidden.clone()
                handed = level.generator(features, conditions, grid, mask=seen)[:, patch]
                under = below(patches[patch][None], handed)
                logs = [(a[:, None] + under[None, :]).flatten() for a in logs]
                hidden[0, patch] = False
            values.append(logs[0])
        return torch.cat(values)

    def leaf(cell, conditions):
        return -model.leaf(cell.flatten(1).long(), conditions)[0].sum(1).double()

    def inside(patch, conditions):
        return paths(bottom, patch, conditions, leaf, starts[1])

    every = paths(top, canvas, model.root(canvas, None), inside, starts[0])
    return -(every.logsumexp(0) - torch.tensor(float(len(every))).log()).item(), -every.mean().item()


def test_mar_bound_is_the_mean_over_orders_and_above_the_exact_value(tiny):
    model = tiny(["mar", "mar"], [(2, 2), (2, 1), (1, 1)], std=0.7)
    canvas = torch.tensor([[[[1, 0], [0, 1]]]], dtype=torch.uint8)
    exact, mean = exact_over_orders(model, canvas)
    assert exact < mean - 0.01
    for passes in (1, 2, 4):  # 2 and 4 are stratified; the estimate must stay unbiased
        estimates = model.nll(canvas.expand(20_000, -1, -1, -1), passes=passes).double()
        error = (estimates.std() / len(estimates) ** 0.5).item()
        assert estimates.mean().item() == pytest.approx(mean, abs=5 * error)
        assert estimates.mean().item() > exact - 5 * error


def test_the_likelihood_of_few_steps_scores_the_patches_of_a_step_independently(tiny):
    model = tiny(["mar", "mar"], [(3, 2), (1, 2), (1, 1)], std=0.7)
    canvas = torch.tensor([[[[1, 0], [0, 1], [1, 1]]]], dtype=torch.uint8)
    # cosine takes one of three patches and then two; below, both cells come in one step
    _, mean = exact_over_orders(model, canvas, starts=({0, 1}, {0}))
    assert abs(mean - exact_over_orders(model, canvas)[1]) > 0.01
    steps = partial(StepMasking, [2, 1], ["cosine", "linear"])
    for passes in (1, 2):
        estimates = model.nll_of_passes(canvas.expand(20_000, -1, -1, -1), passes=passes, masking=steps).mean(0)
        error = (estimates.double().std() / len(estimates) ** 0.5).item()
        assert estimates.double().mean().item() == pytest.approx(mean, abs=5 * error)


def test_the_likelihood_of_as_many_steps_as_patches_is_the_bound(tiny):
    model = tiny(["mar", "mar"], [(4, 8), (2, 2), (1, 1)], std=0.7)
    canvas = torch.randint(0, 2, (7, 1, 4, 8), generator=torch.Generator().manual_seed(0)).byte()
    for kind in ("cosine", "linear"):
        steps = partial(StepMasking, [8, 4], [kind] * 2)
        assert torch.equal(
            model.nll_of_passes(canvas, passes=2, seed=3, masking=steps), model.nll_of_passes(canvas, passes=2, seed=3)
        )


def every_third(model, canvas, **options):
    """Likelihoods of a batch taken canvas by canvas, in threes and at once."""
    return [torch.cat([model.nll(part, **options) for part in canvas.split(size)]) for size in (1, 3, len(canvas))]


@pytest.mark.parametrize("passes", [1, 3])
def test_a_seeded_estimate_depends_on_the_canvas_alone(tiny, passes):
    model = tiny(["mar", "mar"], [(4, 8), (2, 2), (1, 1)], std=0.7)
    canvas = torch.randint(0, 2, (7, 1, 4, 8), generator=torch.Generator().manual_seed(0)).byte()
    canvas[5] = canvas[1]
    alone, in_threes, at_once = every_third(model, canvas, passes=passes, seed=3)
    assert torch.allclose(alone, at_once, rtol=1e-6, atol=0)
    assert torch.allclose(in_threes, at_once, rtol=1e-6, atol=0)
    assert at_once[5] == pytest.approx(at_once[1].item(), rel=1e-6)
    backwards = model.nll(canvas.flip(0), passes=passes, seed=3).flip(0)
    assert torch.allclose(backwards, at_once, rtol=1e-6, atol=0)
    other = model.nll(canvas, passes=passes, seed=4)
    assert ((other - at_once).abs() > 1e-3).sum() >= 5
    drawn = [model.nll(canvas, passes=passes) for _ in range(2)]
    assert not torch.allclose(*drawn, rtol=1e-3)
