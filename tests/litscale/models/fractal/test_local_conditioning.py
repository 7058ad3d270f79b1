"""What the levels are told of each patch beside its context: the phase of beat and bar, and the columns just before."""

import itertools

import pytest
import torch

from litscale.models.codec import Codec, SymbolFeatures
from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.canvas import patchify
from litscale.models.fractal.columns import Preceding

SIZES = [(6, 8), (6, 1), (2, 1), (1, 1)]
TOLD = {"periods": [2, 3], "preceding_columns": 3, "preceding_margin": 1, "preceding_average": 4}


@pytest.fixture
def build(stir):
    """Build a small model that is told everything, and whose symbols depend on each other strongly."""

    def make(generators=("ar", "ar", "ar"), sizes=SIZES, seed=0, **options):
        torch.manual_seed(seed)
        depth = len(sizes)
        options = {"codec": "binary", "scan": "column_major"} | TOLD | options
        positions = ["rope"] + ["learned"] * (depth - 2)
        return stir(
            Fractal(sizes, generators, [8] * depth, [1] * depth, [2] * depth, positions=positions, **options)
        ).eval()

    return make


def canvases(*shape, seed=0):
    return torch.randint(0, 2, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("patch", "columns", "margin", "average"),
    [((3, 2), 5, 2, 0), ((2, 4), 1, 0, 3), ((6, 1), 3, 1, 5), ((3, 1), 0, 1, 2), ((2, 2), 2, 1, 20)],
)
def test_what_comes_before_by_loops(patch, columns, margin, average):
    features = SymbolFeatures(Codec("velocity", 5))
    canvas = torch.randint(0, 6, (2, 1, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cells = features(canvas)
    grid = (6 // patch[0], 8 // patch[1])
    preceding = Preceding(patch, columns, margin, average)
    found = preceding.of_all(canvas, features)
    assert found.shape == (2, grid[0] * grid[1], 3, patch[0] + 2 * margin, columns + (average > 0))
    rows, index = torch.tensor([1, 0, 1]), torch.tensor([0, grid[0] * grid[1] - 1, 1])
    some = preceding.of_some(patchify(canvas, patch), grid, rows, index, features)
    torch.testing.assert_close(some, found[rows, index])
    for b, f, r, k in itertools.product(range(2), range(3), range(grid[0]), range(grid[1])):
        for y in range(patch[0] + 2 * margin):
            row, first, shown = r * patch[0] + y - margin, k * patch[1], found[b, r * grid[1] + k, f, y]
            past = cells[b, f, row, :first].tolist() if 0 <= row < 6 else [0.0] * first
            wanted = ([0.0] * columns + past)[len(past) :]
            assert shown[:columns].tolist() == wanted
            if average:
                assert shown[columns] == pytest.approx(sum(past[-average:]) / max(len(past[-average:]), 1))


def test_rows_of_what_comes_before_by_loops():
    before = torch.arange(2 * 10 * 3).reshape(2, 1, 10, 3)  # six rows with two more on either side
    found = Preceding((6, 1), 3, 2).below(before, (2, 4), (3, 2))
    assert found.shape == (2, 6, 1, 6, 3)
    for b, r, k in itertools.product(range(2), range(3), range(2)):
        assert torch.equal(found[b, 2 * r + k], before[b, :, 2 * r : 2 * r + 6])


@torch.no_grad()
def test_the_state_before_a_patch_knows_its_phase(build):
    """Moving one entry of the table moves the conditions from the first patch of that phase on, and no earlier one."""
    model = build()
    generator, canvas, start = model.levels[0].generator, canvases(3, 1, 6, 8), torch.tensor([0, 1, 5])
    patches = model.features.of_patches(patchify(canvas, (6, 1)))

    def conditions():
        local = model.local(0, canvas, None, start)
        return generator(patches, model.root(canvas, None), (1, 8), None, local)[:, :, 0]

    before = conditions()
    for entry, (period, phase) in enumerate([(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]):
        kept = generator.phase_emb[entry].clone()
        generator.phase_emb[entry] += torch.arange(8.0)
        moved = (conditions() != before).any(2)
        generator.phase_emb[entry] = kept
        for b in range(3):
            first = next(k for k in range(8) if (int(start[b]) + k) % period == phase)
            assert moved[b].tolist() == [k >= first for k in range(8)]


def test_windows_behave_alike_wherever_they_lie(build):
    model, canvas = build(), canvases(4, 1, 6, 8)
    nats = [model.nll(canvas, start=torch.full((4,), start)) for start in (0, 6, 600, 1)]
    assert torch.equal(nats[0], model.nll(canvas))
    assert torch.equal(nats[0], nats[1])
    assert torch.equal(nats[0], nats[2])
    assert (nats[0] != nats[3]).all()
    # rotary positions take more columns than there were in training
    assert model.nll(canvases(2, 1, 6, 24)).shape == (2,)


@pytest.mark.parametrize("generators", [("ar", "ar"), ("ar", "mar")], ids=str)
@pytest.mark.parametrize("guiding", [False, True])
def test_probabilities_sum_to_one(build, generators, guiding):
    """Nothing that is told gives away what is to be predicted. (Guiding values are symbols of their own.)"""
    model = build(generators, [(2, 4), (2, 1), (1, 1)], guiding=guiding)
    every = torch.tensor(list(itertools.product((0, 1), repeat=8)), dtype=torch.uint8).reshape(-1, 1, 2, 4)
    if generators[1] == "mar":
        # of an order-agnostic bound, that of any one pass sums to at most 1
        assert model.nll(every, passes=400, seed=0).double().neg().exp().sum() < 1.01  # masks are drawn
    else:
        total = model.nll(every).double().neg().exp().sum().item()
        assert total == pytest.approx(1, abs=1e-5) if not guiding else total < 1


@torch.no_grad()
def test_likelihood_depends_on_what_comes_before_as_told(build):
    """A first level that hands down nothing leaves the columns before, which reach three columns and one row."""
    model = build(periods=[], preceding_average=0)
    model.levels[1].generator.cond_emb.weight.zero_()
    canvas = canvases(1, 1, 6, 8)

    def leaf(canvas):
        received = []
        hook = model.leaf.register_forward_hook(lambda module, args, output: received.append(args[1]))
        model.nll(canvas)
        hook.remove()
        return received[0].reshape(8, 3, 2, -1)  # column, patch of two rows, row

    before = leaf(canvas)
    changed = canvas.clone()
    changed[0, 0, 3, 2] ^= 1
    moved = (leaf(changed) != before).any(-1)
    # row 3 is in the patch of rows 2 and 3, in the margin of rows 4 and 5, and those after a patch in its column see it
    # by way of the second level
    assert not moved[:2].any()
    assert not moved[6:].any()
    assert not moved[3:6, 0].any()
    assert moved[3:6, 1:].all()


@pytest.mark.parametrize("options", [{}, {"codec": "onset_hold", "velocity_bins": 2}], ids=str)
def test_sampling_has_the_conditions_of_training(build, sample_conditions, options):
    model = build(**options)
    canvas, conditions = sample_conditions(model, options=Generation(decoding="sequential"), batch_size=3, seed=1)
    forced, _ = sample_conditions.forced(model, canvas)
    for name, values in conditions.items():
        torch.testing.assert_close(values, forced[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("label", [None, torch.tensor([0, 1, 1])], ids=["", "cfg"])
@pytest.mark.parametrize("guiding", [False, True])
def test_all_ways_of_decoding_agree(build, label, guiding):
    model = build(guiding=guiding, num_classes=2)
    draft = build(num_classes=2, seed=5, preceding_columns=1, preceding_margin=0, periods=[5])
    cfg = 1.0 if label is None else 2.0
    request = {"batch_size": 3, "label": label, "length": 11, "seed": 2, "start": torch.tensor([0, 4, 1])}
    wanted = generate(model, options=Generation(decoding="sequential", cfg=cfg), **request)
    for options in ({}, {"parallel_level": 2}, {"use_cache": False}, {"guess": "previous"}):
        assert torch.equal(generate(model, options=Generation(cfg=cfg, **options), **request), wanted)
    assert torch.equal(generate(model, options=Generation(cfg=cfg, guess="draft"), draft=draft, **request), wanted)
    later = generate(model, options=Generation(cfg=cfg), **request | {"start": torch.tensor([3, 3, 3])})
    assert not torch.equal(later, wanted)


@pytest.mark.parametrize("offset", range(5))
def test_known_cells(build, offset):
    model = build()
    canvas, known = canvases(3, 1, 6, 8, seed=offset), torch.zeros(3, 1, 6, 8, dtype=torch.bool)
    known[0, ..., :offset] = True
    known[1] = True
    known[1, ..., offset : offset + 3] = False
    known[2, :, offset] = True
    options = [Generation(decoding=decoding) for decoding in ("sequential", "jacobi")]
    sequential, parallel = (generate(model, options=o, canvas=canvas, known=known, seed=1) for o in options)
    assert torch.equal(sequential, parallel)
    assert torch.equal(parallel[known], canvas[known])


def test_later_windows_know_their_phase(build):
    model, greedy = build(seed=3), Generation(greedy=True)
    whole = generate(model, options=greedy, batch_size=2, length=12)
    tail = whole[..., 4:]
    known = torch.zeros_like(tail, dtype=torch.bool)
    known[..., :4] = True
    again = [
        generate(model, options=greedy, canvas=tail, known=known, start=torch.full((2,), start)) for start in (4, 3)
    ]
    assert torch.equal(again[0], tail)
    assert not torch.equal(again[1], tail)


def test_levels_of_several_columns_and_rows(build):
    """Beats of four steps in two rows of patches; then steps, octaves and notes."""
    sizes = [(6, 8), (3, 4), (3, 1), (1, 1)]
    model = build(sizes=sizes, codec="onset_hold", velocity_bins=2)
    request = {"batch_size": 2, "length": 16, "seed": 1}
    wanted = generate(model, options=Generation(decoding="sequential"), **request)
    assert torch.equal(generate(model, **request), wanted)
    mixed = build(["ar", "mar", "ar"], sizes)
    assert generate(mixed, **request).shape == (2, 1, 6, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generators": ["mar", "ar", "ar"]}, "set its generator to ar"),
        ({"sizes": [(6, 8), (3, 1), (1, 1), (1, 1)], "scan": "row_major"}, "its scan to column_major"),
        ({"periods": [4, 0]}, "periods must be at least 1"),
        ({"preceding_columns": -1}, "preceding_columns, preceding_margin and preceding_average must be"),
        ({"preceding_columns": 0, "generators": ["mar", "ar", "ar"]}, "or both options to 0"),
    ],
)
def test_impossible_options(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
    with pytest.raises(ValueError, match="start has 1 numbers for 2 canvases"):
        generate(build(), batch_size=2, start=torch.tensor([0]))
