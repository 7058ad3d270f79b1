"""Sampling around a network that is replaced by numbers: windows, seeds, what ranks patches, what a step is told."""

import math
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from litscale.models.fractal import Fractal, Generation, drawing, generate
from litscale.models.fractal.ar import AR
from litscale.models.fractal.canvas import patchify
from litscale.models.fractal.drawing import Canvases, Drawing
from litscale.models.fractal.generation_recursion import Recursion
from litscale.models.fractal.generation_report import GenerationReport
from litscale.models.fractal.generator import GeneratorConfig
from litscale.models.fractal.head import CategoricalHead
from litscale.models.fractal.options import per_level
from litscale.models.fractal.terms import LossTerms
from litscale.models.keyed import cell_keys, gumbel, numbers
from litscale.models.layers.blocks import StackConfig

SEQUENTIAL = Generation(decoding="sequential")


def recursion(model, iterations, order="random", oversampling=100):
    """The recursion of one call, seeded; ``iterations`` has a number for each level."""
    options = Generation(iterations, filter_threshold=0.0, order=order, confidence_oversampling=oversampling)
    return Recursion(Drawing(model, options, GenerationReport()), len(model.levels))


def canvases(model, canvas, known):
    """Canvases of the first level, as `generate` hands them to the recursion."""
    keys = cell_keys(0, torch.arange(len(canvas)), *canvas.shape[2:])
    return Canvases(symbols=canvas, known=known, keys=keys, conditions=model.root(canvas, None))


@pytest.fixture
def draws(monkeypatch):
    """Let a function of (conditions, cfg, symbols, known) draw all cells and guiding values in place of the heads."""

    def replace(function):
        def draw_cells(self, head, conditions, cfg, noise, *given):
            return function(conditions, cfg, *given)

        monkeypatch.setattr(Drawing, "draw_cells", draw_cells)

    return replace


@pytest.fixture
def recorder(monkeypatch):
    """See `Recorder`."""

    def build(width, patch):
        model = Recorder(width, patch)
        monkeypatch.setattr(sys.modules[generate.__module__], "Recursion", model.recursion)
        return model

    return build


class Recorder(torch.nn.Module):
    """Stands in for a model of 2 x ``width``: fills what is unknown with the call's number, and keeps the calls."""

    no_class, num_classes = torch.zeros(1), 0
    codec = SimpleNamespace(alphabet=256, channels=1, is_image=True)

    def __init__(self, width, patch):
        super().__init__()
        self.sizes = [(2, width), (2, patch)]
        self.levels = [SimpleNamespace(patch=(2, patch), generator=SimpleNamespace(causal=False))]
        self.calls = []

    def root(self, canvas, label):
        """Conditions that are the labels, or zeros."""
        return torch.zeros(len(canvas)) if label is None else label

    def recursion(self, drawing, parallel):
        """What fills the next window."""

        def fill(depth, work, on_step):
            canvas, known = work.symbols, torch.zeros_like(work.symbols, dtype=torch.bool)
            known = known if work.known is None else work.known
            call = {"canvas": canvas.clone(), "known": known.clone(), "label": work.conditions, "on_step": on_step}
            self.calls.append(call | {"temperature": drawing.options.temperature, "keys": work.keys})
            made = torch.where(known, canvas, 100 + len(self.calls))
            if on_step is not None:
                on_step(made, torch.ones_like(known))
            return made, None

        return SimpleNamespace(fill=fill)


@pytest.mark.parametrize(
    ("width", "patch", "length", "given", "starts"),
    [
        # half of a window, cut to whole patches, lies before what is next to fill; the last ends with the canvas
        (12, 4, 29, 6, [0, 4, 8, 12, 16, 20]),
        (16, 4, 40, 6, [0, 8, 16, 24]),
        (8, 4, 27, 11, [4, 8, 12, 16, 20]),
        (8, 8, 19, 3, [0, 8, 16]),
        (16, 4, 13, 0, [0]),
    ],
)
def test_windows_and_their_keys_by_hand(recorder, width, patch, length, given, starts):
    columns = torch.arange(length, dtype=torch.uint8)
    canvas = columns.expand(1, 1, 2, length).clone()
    known = (columns < given).expand(1, 1, 2, length).clone()
    if length < width:  # padded to whole patches only, which the model is asked to fill as they are
        width = -(-length // patch) * patch
    model = recorder(width, patch)
    made = generate(model, torch.tensor([3]), Generation(temperature=0.5), canvas=canvas, known=known, seed=5)
    whole = torch.nn.functional.pad(canvas, (0, -length % patch))
    done = torch.nn.functional.pad(known, (0, -length % patch))
    keys = cell_keys(5, torch.tensor([0]), 2, whole.shape[3])
    for i, (start, call) in enumerate(zip(starts, model.calls, strict=True)):
        window = slice(start, start + width)
        assert torch.equal(call["keys"], keys[..., window])
        assert torch.equal(call["known"], done[..., window])
        assert torch.equal(call["canvas"][call["known"]], whole[..., window][done[..., window]])
        assert (call["label"].tolist(), call["temperature"], call["on_step"]) == ([3], 0.5, None)
        whole[..., window] = torch.where(done[..., window], whole[..., window], 101 + i)
        done[..., window] = True
    assert torch.equal(made, whole[..., :length])


def test_without_a_seed_torch_decides(recorder):
    keys = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        model = recorder(4, 2)
        generate(model, canvas=torch.zeros(1, 1, 2, 10, dtype=torch.uint8))
        keys.append(torch.cat([call["keys"] for call in model.calls], dim=-1))
    assert torch.equal(keys[0], keys[2])
    assert not (keys[0] == keys[1]).any()


def test_canvases_are_keyed_by_their_numbers(recorder):
    model = recorder(4, 2)
    generate(model, batch_size=3, seed=7, index=torch.tensor([4, 0, 9]))
    assert torch.equal(model.calls[0]["keys"], cell_keys(7, torch.arange(10), 2, 4)[[4, 0, 9]])
    assert len(model.calls[0]["keys"].unique()) == 24


def test_each_step_of_a_window_shows_the_whole_canvas(recorder):
    """Windows of 4 at 0, 2 and 4 of 7 columns (padded to 8), the first of which is known."""
    canvas, known, shown = torch.full((1, 1, 2, 7), 9, dtype=torch.uint8), torch.zeros(1, 1, 2, 7, dtype=torch.bool), []
    known[..., :1] = True
    generate(recorder(4, 2), canvas=canvas, known=known, on_step=lambda *step: shown.append([x.clone() for x in step]))
    rows = [part[0, 0, 1].tolist() for part, _ in shown]
    assert rows[0] == [9, 101, 101, 101, 0, 0, 0]  # what lay in unknown cells is gone
    assert rows[1] == [9, 101, 101, 101, 102, 102, 0]
    assert rows[2] == [9, 101, 101, 101, 102, 102, 103]
    assert [done[0, 0, 0].sum().item() for _, done in shown] == [4, 6, 7]
    assert all(part.shape == done.shape == canvas.shape for part, done in shown)


@pytest.mark.parametrize("generators", [["ar", "ar"], ["mar", "mar"], ["ar", "mar"], ["mar", "ar"]])
def test_the_log_probability_counts_every_cell_and_every_guiding_value(draws, generators):
    model = Fractal([(4, 6), (2, 3), (1, 1)], generators, [8, 8, 8], [1, 1, 1], [2, 2, 2], codec="binary", guiding=True)
    model.eval()
    cell, guide = math.log(0.5), -10.0

    @draws
    def drawn(conditions, cfg, symbols=None, known=None):
        if symbols is None:  # a guiding value
            return torch.zeros(len(conditions), 1, dtype=torch.long), torch.full((len(conditions),), guide)
        return torch.where(known, symbols, 1), torch.full((len(symbols),), cell)

    canvas = torch.zeros(2, 1, 4, 6, dtype=torch.uint8)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[1, :, :2] = True  # two of the four patches
    known[1, :, 2, 0] = True  # and one cell of the third
    with torch.no_grad():
        made, log_prob = recursion(model, [2, 2], "confidence").fill(0, canvases(model, canvas, known))
    assert log_prob.tolist() == pytest.approx([24 * cell + 4 * guide, 11 * cell + 2 * guide])
    assert torch.equal(made, (~known).to(torch.uint8))


@torch.no_grad()
@pytest.mark.parametrize(
    ("oversampling", "wanted", "seen"),
    [
        (100, [1, 0, 3, 2], [4, 3, 2, 1]),  # all that is hidden is drawn, and the surest is kept
        (1e30, [1, 0, 3, 2], [4, 3, 2, 1]),
        (math.inf, [1, 0, 3, 2], [4, 3, 2, 1]),
        (2, None, [2, 2, 2, 1]),  # two are drawn
        (1, None, [1, 1, 1, 1]),
    ],
)
def test_confidence_is_the_log_probability_of_a_cell(monkeypatch, oversampling, wanted, seen):
    """Of patch 0 one cell is drawn, at -1.5; the four of patch 1 are surer cell by cell and less sure in sum."""
    model = Fractal([(4, 4), (2, 2), (1, 1)], ["mar", "mar"], [8, 8, 8], [1, 1, 1], [2, 2, 2], codec="binary").eval()
    canvas = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[0, 0, 0, 0] = known[0, 0, 1, :2] = True
    sureness = torch.tensor([[-9.0, -1.5, -9, -9], [-1.0] * 4, [-2.0] * 4, [-0.5, -4.5, -0.5, -0.5]])
    work, order, drawn = canvases(model, canvas, known), [], []
    where = {key: i for i, key in enumerate(patchify(work.keys, (2, 2)).flatten().tolist())}

    def draw_cells(self, head, conditions, cfg, keys, symbols, known):
        cells = [where[key] for key in keys.tolist()]
        drawn.append({cell // 4 for cell in cells})
        return torch.where(known, symbols, 1), sureness.flatten()[cells]

    monkeypatch.setattr(Drawing, "noise", lambda self, keys, depth: keys)  # by which a cell is recognised
    monkeypatch.setattr(Drawing, "step_keys", lambda self, keys, depth, step: keys)
    monkeypatch.setattr(Drawing, "draw_cells", draw_cells)
    whole = recursion(model, [4, 1], "confidence", oversampling)
    step = lambda _, done: order.append({i for i in range(4) if patchify(done, (2, 2))[0, i].all()})  # noqa: E731
    log_prob = whole.fill(0, work, step)[1]
    new = [after - before for before, after in pairwise([set(), *order])]
    assert [len(patches) for patches in drawn] == seen
    # of what was drawn the surest patch is kept, and what is not kept is drawn again
    per_cell = [-1.5, -1.0, -2.0, -1.5]
    for candidates, kept, later in zip(drawn, new, [*drawn[1:], set()], strict=True):
        (patch,) = kept
        assert per_cell[patch] == max(per_cell[i] for i in candidates)
        assert candidates - kept <= later or len(later) < 2
    assert 0 in drawn[0]  # known in part
    if wanted is not None:
        assert [patch for kept in new for patch in kept] in (wanted, [1, 3, 0, 2])  # 0 and 3 are equally sure
    assert log_prob.item() == pytest.approx(-1.5 - 4 - 6 - 8)


@pytest.mark.parametrize(
    ("generators", "scales"),
    [
        # AR: the scale of step s of 6 is 1 + 2 s / 6
        (["ar"], [1 + 2 * s / 6 for s in range(1, 7)]),
        # MAR: 6 patches in 3 steps, of which 5, then 3, then none stay hidden; the last counts as one, as published
        (["mar"], [1 + 2 * (6 - left) / 6 for left in (5, 3, 1)]),
    ],
)
def test_the_guidance_scale_of_every_step(draws, generators, scales):
    model = Fractal([(2, 3), (1, 1)], generators, [8, 8], [1, 1], [2, 2], codec="binary", num_classes=2).eval()
    seen = []

    @draws
    def drawn(conditions, cfg, symbols, known):
        seen.extend(torch.as_tensor(cfg).unique().tolist())
        return torch.zeros(len(conditions) // 2, 1, dtype=torch.long), None

    generate(model, torch.tensor([1]), Generation(3, cfg=3.0, decoding="sequential"))
    assert seen == pytest.approx(scales)
    seen.clear()
    generate(model, torch.tensor([1]), Generation(3, cfg=3.0, cfg_schedule="constant", decoding="sequential"))
    assert seen == [3.0] * len(scales)


@torch.no_grad()
def test_levels_below_the_first_are_guided_at_the_scale_of_its_step(draws):
    sizes = [(2, 4), (2, 2), (1, 1)]
    model = Fractal(sizes, ["ar", "ar"], [8, 8, 8], [1, 1, 1], [2, 2, 2], codec="binary", num_classes=2).eval()
    seen = []

    @draws
    def drawn(conditions, cfg, symbols, known):
        seen.append(cfg)
        return torch.zeros(len(conditions) // 2, 1, dtype=torch.long), None

    generate(model, torch.tensor([1]), Generation(cfg=3.0, decoding="sequential"))
    assert seen == pytest.approx([2.0] * 4 + [3.0] * 4)


@torch.no_grad()
def test_an_ar_level_shows_each_patch_that_it_made(draws):
    """Column by column; the second patch of the order is known, so nothing is shown for it."""
    model = Fractal(
        [(4, 4), (2, 2), (1, 1)], ["ar", "ar"], [8] * 3, [1] * 3, [2] * 3, codec="binary", scan="column_major"
    )
    draws(lambda conditions, cfg, symbols, known: (1 - symbols, None))
    canvas = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[..., 2:, :2] = True
    shown = []
    made = generate(
        model,
        None,
        SEQUENTIAL,
        canvas=canvas,
        known=known,
        on_step=lambda part, done: shown.append((part.clone(), done)),
    )
    corners = [[[1, 0], [1, 0]], [[1, 1], [1, 0]], [[1, 1], [1, 1]]]
    assert [done[0, 0, ::2, ::2].int().tolist() for _, done in shown] == corners
    assert [part[0, 0, ::2, ::2].tolist() for part, _ in shown] == [
        [[1, 0], [0, 0]],
        [[1, 1], [0, 0]],
        [[1, 1], [0, 1]],
    ]
    assert torch.equal(made, shown[-1][0])
    assert torch.equal(made, generate(model, None, SEQUENTIAL, canvas=canvas, known=known))


@torch.no_grad()
@pytest.mark.parametrize("guided", [False, True])
def test_the_head_draws_what_it_predicts(stir, guided):
    """The log-probability of a draw is that of the teacher-forced pass; channels that are known are free."""
    torch.manual_seed(0)
    head = stir(CategoricalHead(StackConfig(8, 2, 2), 4, channels=3, alphabet=5))
    conditions = torch.randn(40, 1, 4)
    known = torch.zeros(40, 3, dtype=torch.bool)
    known[::2, 1] = True
    given = torch.randint(0, 5, (40, 3))
    drawing = Drawing(None, Generation(filter_threshold=0.0, order="confidence"), GenerationReport())
    noise = gumbel(numbers(torch.arange(40), 3), 5)
    rows = conditions.repeat(2, 1, 1) if guided else conditions  # with equal halves guidance changes nothing
    drawn, log_prob = drawing.draw_cells(head, rows, 3.0 if guided else None, noise, symbols=given, known=known)
    assert torch.equal(drawn[known], given[known])
    nats, logits = head(drawn, conditions)
    torch.testing.assert_close(log_prob, -(nats * ~known).sum(1), atol=1e-4, rtol=1e-4)
    terms, row = LossTerms(with_entropy=True), torch.arange(40)
    terms.add("leaf", nats, torch.ones(40), row, logits)
    shares = head.logits(drawn, conditions).softmax(-1)
    assert terms.entropy.item() == pytest.approx(-(shares * shares.log()).sum(-1).mean().item(), rel=1e-5)


@torch.no_grad()
def test_known_channels_may_be_symbols_that_min_p_removes(stir):
    torch.manual_seed(0)
    head = stir(CategoricalHead(StackConfig(8, 2, 2), 4, channels=2, alphabet=5))
    conditions, known = torch.randn(6, 1, 4), torch.tensor([[True, False]]).expand(6, 2)
    least = head.logits(torch.zeros(6, 2, dtype=torch.long), conditions).argmin(-1)
    drawing = Drawing(None, Generation(min_p=1.0, order="confidence"), GenerationReport())
    drawn, log_prob = drawing.draw_cells(
        head, conditions, None, gumbel(numbers(torch.arange(6), 2), 5), symbols=least, known=known
    )
    assert torch.equal(drawn[:, 0], least[:, 0])
    # of each channel that is drawn, only the likeliest symbol is left
    assert torch.equal(drawn[:, 1], head.logits(drawn, conditions)[:, 1].argmax(-1))
    assert log_prob.tolist() == [0.0] * 6


def test_learned_positions_refuse_more_rows_or_more_columns():
    config = GeneratorConfig(3, (2, 5), StackConfig(8, 1, 2), 1, 4)
    generator = AR(config)
    for grid in ((2, 5), (1, 5), (2, 1)):
        generator.check_grid(grid)
    for grid in ((3, 1), (1, 6), (3, 6)):
        with pytest.raises(ValueError, match=f"a grid of 2x5 patches, the canvas has {grid[0]}x{grid[1]}"):
            generator.check_grid(grid)
    AR(replace(config, positions="rope")).check_grid((9, 9))


def test_the_defaults_are_the_published_ones():
    model = Fractal([(4, 4), (2, 2), (1, 1)], ["mar", "ar"], [8] * 3, [1] * 3, [2] * 3, guiding=True, num_classes=50)
    head = model.levels[1].guide_head
    # a MAR level hands down its neighbours' states too, unless the leaf takes them, which reads the first only
    lowest = Fractal([(4, 4), (2, 2), (1, 1)], ["mar", "mar"], [8] * 3, [1] * 3, [2] * 3).levels
    assert [level.generator.conditions_out for level in (*model.levels, *lowest)] == [5, 1, 5, 1]
    assert (len(head.blocks), head.blocks[0].attn.heads, head.codebook.shape[-1]) == (3, 4, 128)
    assert (model.mask_mean, model.mask_std, model.label_drop, model.root_conditions) == (1.0, 0.25, 0.1, 1)
    assert asdict(Generation()) == {
        "iterations": 8,
        "schedule": "cosine",
        "temperature": 1.0,
        "min_p": 0.0,
        "cfg": 1.0,
        "cfg_schedule": "linear",
        "filter_threshold": 1e-4,
        "order": "random",
        "confidence_oversampling": 2.0,
        "use_cache": True,
        "token_cache": 1,
        "greedy": False,
        "decoding": "auto",
        "parallel_level": None,
        "guess": "repeat",
        "weights": "float32",
        "compile": False,
    }


def test_initial_weights():
    torch.manual_seed(0)
    model = Fractal([(16, 16), (4, 4), (1, 1)], ["mar", "ar"], [64] * 3, [1] * 3, [2] * 3, num_classes=50)
    top = model.levels[0].generator
    for name, parameter in model.named_parameters():
        if name.endswith(("no_class", "pos_emb", "mask_token", "codebook", "class_emb.weight")):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.3), name
            assert parameter.mean().abs().item() < 0.01, name
        elif name.endswith("bias"):
            assert not parameter.any(), name
    # uniform up to (6 / (in + out)) ** 0.5
    bound = (6 / (64 + 192)) ** 0.5
    weight = top.blocks[0].attn.qkv.weight
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_options_for_all_levels_or_for_each():
    assert per_level("scan", "row_major", 3) == ["row_major"] * 3
    assert per_level("iterations", 4, 2) == [4, 4]
    assert per_level("iterations", [4, 2], 2) == [4, 2]
    with pytest.raises(ValueError, match="iterations has 2 entries for 3 levels"):
        per_level("iterations", [4, 2], 3)


def test_no_two_kinds_of_noise_have_a_key_in_common(monkeypatch):
    words = []
    monkeypatch.setattr(drawing, "chained", lambda keys, word: words.append(word) or keys)
    head = SimpleNamespace(channels=1, codebook=torch.zeros(1, 2, 1))
    model = SimpleNamespace(levels=[SimpleNamespace(guide_head=head)] * 4, leaf=head)
    made, keys = Drawing(model, Generation(), GenerationReport()), torch.zeros(1, 1, dtype=torch.int64)
    for depth in range(4):
        made.noise(keys, depth)
        made.order_keys(keys, depth)
        for step in range(1, 9):
            made.step_keys(keys, depth, step)
    assert len(words) == len(set(words)) == 4 * 10
