"""Exact parallel decoding equals drawing one symbol after the other, whatever is guessed."""

import copy
import itertools
import math

import pytest
import torch
from dispatch import count_operators
from products import every_pair

from litscale.models.fractal import Fractal, Generation, GenerationReport, generate
from litscale.models.fractal import generation_recursion as recursion_module
from litscale.models.fractal.jacobi import goes_on
from litscale.models.fractal.layout import Layout

SIZES = [(6, 8), (6, 1), (2, 1), (1, 1)]


@pytest.fixture
def model_of(stir):
    """Build a small model whose symbols depend on each other strongly."""

    def build(generators=("ar", "ar", "ar"), sizes=SIZES, **options):
        torch.manual_seed(0)
        depth = len(sizes)
        options = {"codec": "onset_hold", "velocity_bins": 2, "scan": "column_major"} | options
        return stir(Fractal(sizes, generators, [8] * depth, [1] * depth, [2] * depth, **options)).eval()

    return build


def both(model, guess="repeat", level=None, cfg=1.0, min_p=0.0, **request):
    """Sequential and parallel samples of a request, and the report of the latter."""
    report = GenerationReport()
    request = {"seed": 3} | request
    plain = {name: value for name, value in request.items() if name != "draft"}
    sequential = generate(model, options=Generation(decoding="sequential", cfg=cfg, min_p=min_p), **plain)
    options = Generation(decoding="jacobi", parallel_level=level, guess=guess, cfg=cfg, min_p=min_p)
    return sequential, generate(model, options=options, report=report, **request), report


@pytest.mark.parametrize(
    ("codec", "scan_and_cfg", "guiding"),
    every_pair(
        ["onset_hold", "binary", "velocity", "gray", "rgb"],
        [("column_major", 1.0), ("row_major", 3.0), (["row_major", "row_major", "column_major"], 1.0)],
        [False, True],
    ),
    ids=str,
)
def test_parallel_equals_sequential(model_of, codec, scan_and_cfg, guiding):
    scan, cfg = scan_and_cfg
    sizes = [(6, 4), *SIZES[1:]]
    model = model_of(codec=codec, scan=scan, sizes=sizes, guiding=guiding, num_classes=3)
    for level, batch in ((1, 1), (2, 3)):
        label = torch.arange(batch) % 3
        sequential, parallel, report = both(model, level=level, cfg=cfg, min_p=0.3 * (batch > 1), label=label)
        assert torch.equal(sequential, parallel)
        assert report.patches == 4 * (1 if level == 1 else 3) * batch
        per_patch = model.codec.channels * (6 + guiding * (1 + 3) if level == 1 else 2 + guiding)
        assert report.symbols == report.patches * per_patch
        assert report.passes <= report.patch_passes <= report.passes * batch
    assert len(sequential.unique()) > 1


@pytest.mark.parametrize("generators", [["mar", "ar", "ar"], ["ar", "mar", "ar"], ["mar", "mar", "ar"]], ids=str)
@pytest.mark.parametrize("order", ["random", "confidence"])
def test_levels_below_mar_are_decoded_in_parallel_too(model_of, generators, order):
    model = model_of(generators, guiding=True)
    options = Generation(iterations=3, order=order)
    report = GenerationReport()
    parallel = generate(model, options=options, batch_size=3, seed=1, report=report)
    sequential = generate(
        model, options=Generation(iterations=3, order=order, decoding="sequential"), batch_size=3, seed=1
    )
    assert torch.equal(parallel, sequential)
    assert report.patches >= 3 * 8 * (1 if generators[1] == "ar" else 3)


def test_patches_that_are_known_count_for_nothing(model_of):
    """Confidence ranks columns by what was drawn in them: not by guiding values of octaves that are wholly known."""
    model = model_of(["mar", "ar", "ar"], guiding=True)
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, 4, (16, 1, 6, 8), dtype=torch.uint8, generator=generator)
    octaves = torch.rand(16, 1, 3, 8, generator=generator) < 0.5
    known = octaves.repeat_interleave(2, dim=2)
    request, report = {"canvas": canvas, "known": known, "seed": 0}, GenerationReport()
    options = {"iterations": 3, "order": "confidence", "confidence_oversampling": 100}
    parallel = generate(model, options=Generation(**options), **request)
    assert torch.equal(parallel, generate(model, options=Generation(decoding="sequential", **options), **request))
    generate(model, options=Generation(3), report=report, **request)
    assert report.symbols == (~octaves.all(2)).sum() + 3 * (~octaves).sum()  # a column's, an octave's, and two cells


@pytest.mark.parametrize("offset", range(5))
def test_known_cells_at_every_offset(model_of, offset):
    """A prefix of each row, a hole in the second, and single cells of patches in the third."""
    model = model_of(sizes=[(6, 4), *SIZES[1:]], guiding=offset % 2 == 0)
    canvas = torch.randint(0, 4, (3, 1, 6, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(offset))
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[0, ..., :offset] = True
    known[1] = True
    known[1, ..., offset : offset + 3] = False
    known[2, :, offset % 6] = True
    level = 1 + offset % 3 % 2
    sequential, parallel, report = both(model, level=level, canvas=canvas, known=known)
    assert torch.equal(sequential, parallel)
    assert torch.equal(parallel[known], canvas[known])
    guides = report.patches * (0 if offset % 2 else 4 if level == 1 else 1)
    assert report.symbols == guides + int((~known).sum())


@pytest.mark.parametrize("guess", ["repeat", "previous", "draft"])
@pytest.mark.parametrize("batch", [5, 16])
def test_rows_of_a_batch_wait_for_each_other_and_for_nothing_else(model_of, guess, batch):
    """Rows with a prefix of 0, 3 or 6 columns, and single known cells, under guidance and with guiding values."""
    model = model_of(guiding=True, num_classes=3)
    draft = model_of(num_classes=3) if guess == "draft" else None
    canvas = torch.randint(0, 4, (batch, 1, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(batch))
    known = torch.rand(canvas.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    for row in range(batch):
        known[row, ..., : row % 3 * 3] = True
    request = {"label": torch.arange(batch) % 4 - 1, "canvas": canvas, "known": known, "draft": draft, "cfg": 3.0}
    sequential, parallel, report = both(model, guess, **request)
    assert torch.equal(sequential, parallel)
    assert len(sequential.unique()) == 4
    assert report.passes < report.patch_passes / 2  # on average more than two rows are decoded at once


def test_settled_patches_are_not_scored_again(model_of, monkeypatch):
    """Three patches of two cells: after j passes at least j cells have settled."""
    model, scored = model_of(), []
    logits, begin = model.leaf.logits, recursion_module.ParallelCanvases.begin
    note = lambda symbols, conditions: (scored[-1].append(len(symbols)), logits(symbols, conditions))[1]  # noqa: E731
    monkeypatch.setattr(model.leaf, "logits", note)
    start = lambda self, rows, work: (scored.append([]), begin(self, rows, work))[1]  # noqa: E731
    monkeypatch.setattr(recursion_module.ParallelCanvases, "begin", start)
    monkeypatch.setattr(recursion_module, "goes_on", lambda codec, patches: torch.full_like(patches, 2))
    report = GenerationReport()
    generate(model, seed=3, report=report)
    assert [column[0] for column in scored] == [6] * 8
    assert sum(map(len, scored)) == report.passes
    for column in scored:
        assert all(cells % 2 == 0 and cells <= 6 - 2 * (j // 2) for j, cells in enumerate(column))
    assert sum(map(sum, scored)) < 6 * report.passes


def test_windows_go_on_in_parallel(model_of):
    sequential, parallel, _ = both(model_of(), batch_size=2, length=21)
    assert torch.equal(sequential, parallel)


def test_a_sample_is_the_same_in_every_batch(model_of):
    model = model_of(["mar", "ar", "ar"], num_classes=2)
    label = torch.tensor([0, 1, 1, 0, 1])
    whole = generate(model, label, Generation(3, cfg=2.0), seed=5)
    for decoding in ("jacobi", "sequential"):
        options = Generation(3, cfg=2.0, decoding=decoding)
        alone = [generate(model, label[i : i + 1], options, seed=5, index=torch.tensor([i])) for i in range(5)]
        assert torch.equal(torch.cat(alone), whole)
        shuffled = torch.tensor([3, 0, 4])
        assert torch.equal(generate(model, label[shuffled], options, seed=5, index=shuffled), whole[shuffled])


@pytest.mark.parametrize("guiding", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_draft_and_the_patch_before_are_guesses_like_any_other(model_of, guiding):
    model = model_of(guiding=guiding, num_classes=2)
    torch.manual_seed(9)
    draft = model_of(guiding=not guiding, num_classes=2, scan=["column_major", "row_major", "row_major"])
    near = copy.deepcopy(model)
    for parameter in near.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    canvas = torch.randint(0, 4, (3, 1, 6, 8), dtype=torch.uint8)
    known = torch.rand(canvas.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    request = {"label": torch.tensor([0, 1, -1]), "canvas": canvas, "known": known, "cfg": 2.0}
    sequential, _, usual = both(model, **request)
    assert torch.equal(both(model, "previous", **request)[1], sequential)
    passes = {}
    for name, network in (("other", draft), ("near", near), ("same", model)):
        _, parallel, report = both(model, "draft", draft=network, **request)
        assert torch.equal(parallel, sequential)
        assert report.summary()["draft_passes"] >= 8
        passes[name] = report.patch_passes
    if not guiding:  # guiding values are not handed over
        assert passes["same"] == usual.patches  # one pass each, which changes nothing
    assert passes["same"] <= passes["near"] < passes["other"]


def test_drafts_that_cannot_guess_are_refused(model_of):
    model, options = model_of(), Generation(guess="draft")
    with pytest.raises(ValueError, match="needs a smaller network that drafts: give one"):
        generate(model, options=options)
    for draft, message in (
        (model_of(["ar", "ar", "mar"]), "two networks of AR levels only"),
        (model_of(num_classes=2), "the draft has num_classes 2 instead of 0$"),
        (model_of(codec="binary"), "the draft has codec binary instead of onset_hold, alphabet 2 instead of 4$"),
        (
            model_of(scan="row_major", sizes=[(6, 8), (3, 2), (3, 1), (1, 1)]),
            r"sizes \[\[6, 8\], \[3, 2\], .* instead of \[\[6, 8\], \[6, 1\]",
        ),
        (model_of(scan="row_major"), "give it the same scan"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(model, options=options, draft=draft)
    with pytest.raises(ValueError, match="parallel_level 1"):
        generate(model, options=Generation(guess="draft", parallel_level=2), draft=model)


@pytest.mark.parametrize("name", ["wrong", "alternating"])
def test_a_bad_guess_costs_passes_and_no_symbol(model_of, monkeypatch, name):
    """At most one pass for each symbol of a patch, since each pass settles one."""
    model = model_of(guiding=True)
    sequential, _, usual = both(model, batch_size=4)

    def guess(codec, patches):
        if name == "wrong":
            return torch.full_like(patches, codec.alphabet - 1)
        return torch.arange(patches.numel()).reshape(patches.shape).remainder(codec.alphabet).byte()

    monkeypatch.setattr(recursion_module, "goes_on", guess)
    _, parallel, report = both(model, batch_size=4)
    assert torch.equal(sequential, parallel)
    assert report.patch_passes <= report.patches * (6 + 4)
    assert report.patch_passes >= usual.patches


def test_each_pass_settles_a_symbol(model_of, monkeypatch):
    """Even if all draws but the first wrong one were thrown away."""
    model = model_of()
    sequential = generate(model, options=Generation(decoding="sequential"), seed=3)
    put = recursion_module.ParallelCanvases._put

    def spoiled(self, name, rows, value, *of):
        if name == "symbols" and "symbols" in self._state and value.shape == self._state["symbols"].shape:
            before = self._take("symbols", rows)
            first = torch.where(value != before, self.layout.turn, len(self.layout.turn)).amin(1, keepdim=True)
            value = torch.where(self.layout.turn <= first, value, 3 - value)
        put(self, name, rows, value, *of)

    report = GenerationReport()
    monkeypatch.setattr(recursion_module.ParallelCanvases, "_put", spoiled)
    assert torch.equal(generate(model, seed=3, report=report), sequential)
    assert report.patch_passes <= report.patches * 6


def test_the_report_counts_by_hand(model_of):
    _, _, report = both(model_of(), batch_size=2)
    summary = report.summary()
    assert summary["passes"] == report.passes
    assert summary["passes_per_patch"] == report.patch_passes / 16
    assert summary["accepted_per_pass"] == 2 * 6 * 8 / report.patch_passes
    assert 0 < summary["margin"] < 1
    assert GenerationReport().summary() == {}
    assert math.isinf(GenerationReport().margin)


def test_frames_are_those_of_sequential_decoding(model_of):
    frames = {"jacobi": [], "sequential": []}
    canvas = torch.randint(0, 4, (3, 1, 6, 8), dtype=torch.uint8)
    known = torch.rand(canvas.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    known[1, ..., 2:5] = True
    for decoding, shown in frames.items():
        keep = lambda *step, shown=shown: shown.append([part.clone() for part in step])  # noqa: E731
        generate(model_of(), options=Generation(decoding=decoding), canvas=canvas, known=known, seed=0, on_step=keep)
    assert len(frames["jacobi"]) == len(frames["sequential"]) == 8
    for ours, theirs in zip(*frames.values(), strict=True):
        assert torch.equal(ours[1], theirs[1])
        assert torch.equal(ours[0], theirs[0])


def test_the_level_is_chosen_by_rule(model_of):
    def depth(generators, **options):
        return Generation(**options).parallel_depth(model_of(generators))

    assert [depth(generators) for generators in itertools.product(["ar", "mar"], repeat=3)] == [1, 3, 2, 3] * 2
    assert depth(["ar"] * 3, parallel_level=2) == 2
    assert depth(["ar"] * 3, decoding="sequential") == 3
    assert depth(["ar"] * 3, use_cache=False) == 3
    images = model_of(codec="gray")
    assert Generation().parallel_depth(images) == 3
    assert Generation(decoding="jacobi").parallel_depth(images) == 1
    for level in (0, 3, -1):
        with pytest.raises(ValueError, match=rf"parallel_level must be .* \(1, 2\), not {level}"):
            depth(["ar"] * 3, parallel_level=level)
    with pytest.raises(ValueError, match="none of this network's levels"):
        depth(["ar", "ar", "mar"], parallel_level=1)
    for options in ({"decoding": "fast"}, {"guess": "silence"}, {"order": "spiral"}):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} must be among"):
            Generation(**options)


def test_notes_go_on_and_colours_stay(model_of):
    codec = model_of().codec
    patches = torch.tensor([[[[1, 0, 2], [0, 3, 0]]]], dtype=torch.uint8)
    assert goes_on(codec, patches).tolist() == [[[[3, 3, 3], [0, 0, 0]]]]
    assert goes_on(model_of(codec="gray").codec, patches).tolist() == [[[[2, 2, 2], [0, 0, 0]]]]


def test_symbols_are_drawn_in_the_order_of_the_layout(model_of):
    """Six cells in three patches of two, each with a guiding value of its own, after the column's."""
    model = model_of(guiding=True)
    layout = Layout(model, 1, torch.device("cpu"))
    assert layout.turn.tolist() == [0, 1, 4, 7, 2, 3, 5, 6, 8, 9]
    cells = torch.arange(6).reshape(1, 1, 6, 1)
    symbols = torch.cat([torch.zeros(1, 4, dtype=torch.long), layout.of_cells(cells).flatten(1)], dim=1)
    assert torch.equal(layout.to_cells(symbols), cells.byte())
    square = model_of(["ar", "ar"], [(4, 8), (4, 4), (1, 1)], scan=["row_major", "column_major"])
    assert Layout(square, 1, torch.device("cpu")).turn.reshape(4, 4).t().flatten().tolist() == list(range(16))


def test_operators_of_a_cell(stir):
    """Few passes dispatch few operators; what is counted does not depend on the machine."""
    torch.manual_seed(0)
    image = Fractal([(16, 16), (4, 4), (1, 1)], ["ar", "ar"], [16, 16, 16], [2, 2, 3], [2] * 3, codec="rgb").eval()
    roll = Fractal(
        [(48, 16), (48, 1), (12, 1), (1, 1)],
        ["ar"] * 3,
        [16] * 4,
        [4, 2, 1, 0],
        [2] * 4,
        velocity_bins=1,
        scan="column_major",
        positions=["both", "learned", "learned"],
    ).eval()
    sequential = count_operators(lambda: generate(image, options=Generation(decoding="sequential"), seed=0))
    # 593 when noise was drawn for each cell and a token was a sequence, 389 when nothing was prepared
    assert sequential.operators / 256 < 199
    assert sequential.host_reads <= 8  # of the request and its window, none in a step
    report = GenerationReport()
    parallel = count_operators(lambda: generate(roll, seed=0, report=report))
    assert parallel.operators / (48 * 16) < 22
    assert parallel.host_reads <= report.passes + 8  # one a pass, and those of the request


def test_samples_have_the_distribution_of_the_model(stir):
    """Chi-square of all canvases of 2 x 2 binary cells against their exact probabilities."""
    torch.manual_seed(0)
    sizes = [(2, 2), (2, 1), (1, 1)]
    model = stir(Fractal(sizes, ["ar", "ar"], [8] * 3, [1] * 3, [2] * 3, codec="binary")).eval()
    every = torch.tensor(list(itertools.product([0, 1], repeat=4)), dtype=torch.uint8).reshape(16, 1, 2, 2)
    wanted = (-model.nll(every)).exp()
    assert wanted.sum().item() == pytest.approx(1, abs=1e-4)
    number = 20_000
    drawn = generate(model, batch_size=number, seed=0).flatten(1).long()
    counts = (drawn * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16)
    chi_square = ((counts - number * wanted).square() / (number * wanted)).sum().item()
    assert chi_square < 37.7  # the 0.1 % quantile of 15 degrees of freedom
