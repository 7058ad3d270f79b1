"""Known cells stay as they are, and what is generated depends on them."""

import itertools

import pytest
import torch
from products import every_pair

from litscale.models.fractal import Fractal, Generation, generate

MIXES = [["ar", "ar", "ar"], ["mar", "mar", "mar"], ["ar", "mar", "ar"], ["mar", "ar", "mar"]]


@pytest.fixture
def model_of(stir):
    """Build a model of 12x16 rolls with the given levels."""
    return lambda generators, **options: stir(_model_of(generators, **options))


def _model_of(generators, **options):
    torch.manual_seed(0)
    options = {"codec": "onset_hold", "velocity_bins": 2, "scan": "column_major"} | options
    return Fractal([(12, 16), (12, 4), (4, 2), (1, 1)], generators, [32, 16, 16, 16], [2, 1, 1, 1], [2] * 4, **options)


def given(seed=0, steps=16):
    return torch.randint(0, 4, (2, 1, 12, steps), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def assert_depends(model, canvas, options):
    """With the same seed, other known cells give other new cells (a random model's may agree once by chance)."""
    known = options["known"]
    changed = torch.where(known, (canvas + 1) % 4, canvas)
    samples = ([generate(model, canvas=c, **{**options, "seed": s}) for c in (canvas, changed)] for s in range(12))
    assert any(not torch.equal(first[~known], second[~known]) for first, second in samples)


@pytest.mark.parametrize(
    ("generators", "order", "prefix"), every_pair(MIXES, ["random", "confidence"], [1, 4, 7, 15]), ids=str
)
def test_continuation(model_of, generators, order, prefix):
    model, canvas = model_of(generators), given()
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[..., :prefix] = True
    options = {"known": known, "options": Generation(iterations=3, order=order), "seed": 1}
    drawn = generate(model, canvas=canvas, **options)
    assert torch.equal(drawn[known], canvas[known])
    assert torch.equal(drawn, generate(model, canvas=torch.where(known, canvas, 3), **options))
    assert_depends(model, canvas, options)


@pytest.mark.parametrize("generators", MIXES)
@pytest.mark.parametrize("offset", range(5))
def test_inpainting_at_every_offset(model_of, generators, offset):
    model, canvas = model_of(generators), given()
    known = torch.ones_like(canvas, dtype=torch.bool)
    known[:, :, 2 + offset : 7 + offset, 3 + offset : 9 + offset] = False
    options = {"known": known, "options": Generation(iterations=2), "seed": 1}
    drawn = generate(model, canvas=canvas, **options)
    assert torch.equal(drawn[known], canvas[known])
    assert_depends(model, canvas, options)


def test_everything_known_is_given_back(model_of):
    canvas = given()
    known = torch.ones_like(canvas, dtype=torch.bool)
    for generators in MIXES:
        assert torch.equal(generate(model_of(generators), canvas=canvas, known=known), canvas)


def test_rows_with_different_known_cells(model_of):
    model, canvas = model_of(["mar", "ar", "mar"]), given()
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[0] = True
    known[1, :, :5] = True
    drawn = generate(model, options=Generation(iterations=3), canvas=canvas, known=known, seed=0)
    assert torch.equal(drawn[known], canvas[known])


@pytest.mark.parametrize(
    ("generators", "length"),
    [
        *((["mar", "mar", "mar"], length) for length in (4, 6, 15, 16, 17, 40)),
        *((["ar", "ar", "ar"], length) for length in (4, 15, 17)),
        *(pytest.param(["ar", "ar", "ar"], length, marks=pytest.mark.slow) for length in (6, 16, 40)),
    ],
)
def test_any_width(model_of, generators, length):
    model, canvas = model_of(generators), given(steps=length)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[..., :2] = True
    kept = canvas.clone(), known.clone()
    steps = []
    drawn = generate(
        model,
        options=Generation(iterations=2),
        canvas=canvas,
        known=known,
        seed=0,
        on_step=lambda c, done: steps.append((c.clone(), done.clone())),
    )
    assert drawn.shape == canvas.shape
    assert torch.equal(drawn[known], canvas[known])
    assert torch.equal(canvas, kept[0])
    assert torch.equal(known, kept[1])
    last, done = steps[-1]
    assert done.all()
    assert torch.equal(last, drawn)


def test_windows_of_a_single_patch_come_to_an_end(stir):
    torch.manual_seed(0)
    model = stir(Fractal([(4, 4), (4, 4), (1, 1)], ["mar", "mar"], [8, 8, 8], [1, 1, 0], [2, 2, 2], codec="binary"))
    known = torch.zeros(1, 1, 4, 14, dtype=torch.bool)
    assert generate(
        model, options=Generation(iterations=1), canvas=known.to(torch.uint8), known=known, seed=0
    ).shape == (1, 1, 4, 14)


@pytest.mark.parametrize("generators", [["ar", "ar", "ar"], ["mar", "ar", "ar"]])
def test_rows_of_a_wide_canvas_have_the_windows_that_they_have_alone(model_of, generators):
    """Canvases of 24 steps, windows of 8, and rows of which 0, 6, 24, 13 and 6 steps are known."""
    model, shown = model_of(generators), []
    canvas = given(steps=24)[[0, 1, 0, 1, 0]]
    known = torch.zeros_like(canvas, dtype=torch.bool)
    for row, count in enumerate((0, 6, 24, 13, 6)):
        known[row, ..., :count] = True
    together = generate(
        model, canvas=canvas, known=known, seed=0, on_step=lambda made, done: shown.append((made.clone(), done.clone()))
    )
    for row in range(5):
        one = slice(row, row + 1)
        alone = generate(model, canvas=canvas[one], known=known[one], seed=0, index=torch.tensor([row]))
        assert torch.equal(alone, together[one])
    assert torch.equal(together[known], canvas[known])
    assert torch.equal(shown[-1][0], together)
    assert shown[-1][1].all()
    assert all((later[1] | ~sooner[1]).all() for sooner, later in itertools.pairwise(shown))


def test_a_wide_canvas_depends_on_its_beginning(model_of):
    model, canvas = model_of(["ar", "ar", "ar"]), given(steps=24)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[..., :6] = True
    first = generate(model, canvas=canvas, known=known, seed=0)
    second = generate(model, canvas=torch.where(known, (canvas + 1) % 4, canvas), known=known, seed=0)
    assert not torch.equal(first[..., 6:], second[..., 6:])


def test_rope_positions_take_any_width_at_once(model_of):
    model = model_of(["ar", "ar", "ar"], positions=["rope", "both", "both"])
    assert generate(model, length=32, window=32, seed=0).shape == (1, 1, 12, 32)
    assert model.nll(given(steps=32)).shape == (2,)
    with pytest.raises(ValueError, match="learned positions cover a grid of 1x4"):
        generate(model_of(["ar", "ar", "ar"]), length=32, window=32)


def test_windows_of_one_column():
    model = Fractal([(4, 4), (4, 1), (1, 1)], ["ar", "ar"], [8] * 3, [1] * 3, [2] * 3, scan="column_major").eval()
    assert generate(model, length=6, window=1, seed=0).shape == (1, 1, 4, 6)


@pytest.mark.parametrize("generators", MIXES[:2], ids=str)
def test_what_lies_in_unknown_cells_does_not_matter(model_of, generators):
    model, canvas = model_of(generators), given()
    known = torch.rand(canvas.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    samples = [generate(model, canvas=canvas.masked_fill(~known, left), known=known, seed=0) for left in (0, 3, 200)]
    assert torch.equal(samples[0], samples[1])
    assert torch.equal(samples[0], samples[2])


@pytest.mark.parametrize("codec", ["binary", "gray", "rgb"])
def test_every_symbol_of_the_alphabet_may_be_known(stir, codec):
    model = stir(Fractal([(4, 4), (2, 2), (1, 1)], ["ar", "mar"], [8] * 3, [1] * 3, [2] * 3, codec=codec)).eval()
    last = model.codec.alphabet - 1
    canvas = torch.full((8, model.codec.channels, 4, 4), last, dtype=torch.uint8)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[..., :3] = True
    made = generate(model, canvas=canvas, known=known, seed=0)
    assert (made[known] == last).all()
    assert not (made == last).all()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"length": 0}, "length must be at least 1"),
        ({"window": -4}, "window must be at least 1"),  # would never end
        ({"known": torch.ones(2, 1, 12, 16, dtype=torch.uint8)}, "known bool"),  # neither
        ({"canvas": given().float()}, "canvas must be uint8"),
        ({"canvas": given() + 100, "known": torch.ones(2, 1, 12, 16, dtype=torch.bool)}, "known cells must be in 0..3"),
        ({"canvas": given(), "label": torch.tensor([1])}, "1 labels for 2 canvases"),
    ],
)
def test_requests_that_make_no_sense_are_refused(model_of, request_, message):
    model = model_of(MIXES[0], num_classes=3)
    if "known" in request_:
        request_ = {"canvas": given()} | request_
    with pytest.raises(ValueError, match=message):
        generate(model, **request_)
