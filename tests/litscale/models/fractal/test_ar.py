"""AR levels are causal, and feeding them step by step gives what one pass gives."""

import itertools

import pytest
import torch

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.ar import AR
from litscale.models.fractal.canvas import scan_order
from litscale.models.fractal.generator import GeneratorConfig
from litscale.models.layers.blocks import StackConfig

CASES = list(itertools.product(["row_major", "column_major"], ["learned", "rope", "both"], [(4, 4), (2, 6)]))


@pytest.fixture
def make(stir):
    """Build an AR generator with inputs for it."""
    return lambda *args, **options: _make(stir, *args, **options)


def _make(stir, scan, positions, grid, conditions=1):
    torch.manual_seed(0)
    generator = stir(
        AR(
            GeneratorConfig(
                12, grid, StackConfig(16, 2, 2), conditions, 8, guide_channels=0, positions=positions, scan=scan
            )
        ).double()
    )
    patches = torch.randn(2, grid[0] * grid[1], 12, dtype=torch.double)
    return generator, patches, torch.randn(2, conditions, 8, dtype=torch.double)


@pytest.mark.parametrize(("scan", "positions", "grid"), CASES)
@pytest.mark.parametrize("conditions", [1, 5])
@torch.no_grad()
def test_a_patch_moves_later_conditions_only(make, scan, positions, grid, conditions):
    generator, patches, received = make(scan, positions, grid, conditions)
    before = generator(patches, received, grid)
    order = scan_order(grid, scan)
    for position, patch in enumerate(order.tolist()):
        changed = patches.clone()
        changed[:, patch] += 1
        moved = (generator(changed, received, grid) != before).flatten(2).any(2)
        assert not moved[:, order[: position + 1]].any()
        assert moved[:, order[position + 1 :]].all()


@pytest.mark.parametrize(("scan", "positions", "grid"), CASES)
@pytest.mark.parametrize("cached", [True, False])
@torch.no_grad()
def test_steps_equal_one_pass(make, scan, positions, grid, cached):
    generator, patches, received = make(scan, positions, grid)
    whole = generator(patches, received, grid)
    tables = generator.tables(grid, cached)
    for _ in range(2):  # tables and caches serve one sequence after the other
        stepper = generator.stepper(received, None, tables)
        for patch in scan_order(grid, scan).tolist():
            torch.testing.assert_close(stepper.condition(), whole[:, patch], atol=1e-5, rtol=0)
            stepper.feed(patches[:, patch])


@torch.no_grad()
def test_patches_fed_together_equal_one_by_one(make):
    generator, patches, received = make("row_major", "both", (4, 4))
    stepper = generator.stepper(received, None, generator.tables((4, 4), cached=True))
    for patch in range(5):
        stepper.feed(patches[:, patch])
    first = stepper.condition()
    for patch in range(5, 9):
        stepper.feed(patches[:, patch])
    whole = generator(patches, received, (4, 4))
    torch.testing.assert_close(first, whole[:, 5], atol=1e-5, rtol=0)
    torch.testing.assert_close(stepper.condition(), whole[:, 9], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scan", ["row_major", "column_major"])
@pytest.mark.parametrize("sizes", [[(8, 8), (4, 4), (1, 1)], [(12, 8), (12, 2), (4, 1), (1, 1)]])
def test_sampling_sees_the_conditions_of_a_teacher_forced_pass(scan, sizes, sample_conditions):
    torch.manual_seed(0)
    depth = len(sizes) - 1
    model = Fractal(
        sizes, ["ar"] * depth, [16] * (depth + 1), [2] * (depth + 1), [2] * (depth + 1), codec="binary", scan=scan
    )
    canvas, seen = sample_conditions(model, batch_size=2, seed=3)
    forced, _ = sample_conditions.forced(model, canvas)
    for level in seen:
        torch.testing.assert_close(seen[level], forced[level], atol=1e-5, rtol=0)


@pytest.mark.parametrize("guiding", [False, True])
def test_cached_samples_equal_uncached_ones(stir, guiding):
    torch.manual_seed(0)
    options = {"codec": "onset_hold", "velocity_bins": 2, "num_classes": 3, "guiding": guiding}
    model = Fractal(
        [(12, 8), (12, 2), (4, 1), (1, 1)], ["ar"] * 3, [32, 16, 16, 16], [2, 1, 1, 1], [2, 2, 2, 2], **options
    )
    stir(model, 0.2)
    label = torch.tensor([0, 2, -1])
    for cfg in (1.0, 2.5):
        cached = generate(model, label, Generation(cfg=cfg), seed=5)
        assert torch.equal(cached, generate(model, label, Generation(cfg=cfg, use_cache=False), seed=5))
        assert not torch.equal(cached, generate(model, label, Generation(cfg=cfg), seed=6))


@torch.no_grad()
def test_a_cached_step_costs_one_row(make):
    generator, patches, received = make("row_major", "both", (4, 4), conditions=3)
    embedded, attended = [], []
    generator.patch_emb.register_forward_hook(lambda module, args, output: embedded.append(args[0].shape[1:-1]))
    qkv = generator.blocks[0].attn.qkv
    qkv.register_forward_hook(lambda module, args, output: attended.append(args[0].shape[1:-1]))
    stepper = generator.stepper(received, None, generator.tables((4, 4), cached=True))
    for patch in range(16):
        stepper.condition()
        stepper.feed(patches[:, patch])
    assert embedded == [()] * 16
    assert attended == [(3,)] + [()] * 15  # the conditions once, then each patch once, as one token of each row
