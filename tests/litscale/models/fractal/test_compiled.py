"""Sequential sampling by compiled graphs: one graph for each level and head, and the symbols of eager sampling."""

from importlib import import_module

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from litscale.models.fractal import Fractal, Generation, compiled, generate

EAGER = Generation(decoding="sequential")
WIDTHS = {"widths": [16, 8, 8], "blocks": [2, 1, 1], "heads": [2, 2, 2]}


@pytest.fixture
def counter(monkeypatch):
    """Run the traced graphs without a compiler, and count them."""
    counter = CompileCounter()
    torch._dynamo.reset()
    functions = {}

    def traced(function, device):
        if function not in functions:
            functions[function] = torch.compile(function, backend=counter, fullgraph=True, dynamic=False)
        return functions[function]

    monkeypatch.setattr(compiled, "compiled", traced)
    # the package has a function of this name
    monkeypatch.setattr(import_module("litscale.models.fractal.generate"), "check_compiler", lambda device: None)
    yield counter
    torch._dynamo.reset()


def network(stir, **options):
    torch.manual_seed(0)
    sizes = [(4, 8), (2, 4), (1, 1)]
    return stir(Fractal(sizes, ["ar", "ar"], **(WIDTHS | {"codec": "rgb", "num_classes": 3} | options))).eval()


@pytest.mark.parametrize(
    ("build", "options", "graphs"),
    [
        pytest.param({}, {}, 3, marks=pytest.mark.slow),  # two levels and the leaf
        pytest.param({}, {"greedy": True}, 3, marks=pytest.mark.slow),
        pytest.param(  # and a guide head
            {"guiding": True, "scan": "column_major"}, {"cfg": 2.5, "temperature": 0.9}, 4, marks=pytest.mark.slow
        ),
        pytest.param(
            {"codec": "velocity", "positions": ["rope", "learned"]},
            {"cfg": 2.5, "cfg_schedule": "constant"},
            3,
            marks=pytest.mark.slow,
        ),
        pytest.param({"zero_prefix_rope": True, "root_conditions": 3, "codec": "gray"}, {}, 3, marks=pytest.mark.slow),
        ({"scan": "column_major", "periods": [3], "preceding_columns": 2, "preceding_average": 5}, {"cfg": 2.0}, 3),
    ],
)
def test_one_graph_for_each_level_and_head(stir, counter, build, options, graphs):
    """`fullgraph` refuses a graph that breaks, and no later step, seed or sample is compiled again."""
    model = network(stir, **build)
    label = torch.tensor([0, 2, -1])
    for seed in range(2):
        wanted = generate(model, label, Generation(decoding="sequential", **options), seed=seed)
        drawn = generate(model, label, Generation(decoding="sequential", compile=True, **options), seed=seed)
        assert torch.equal(drawn, wanted)
        assert counter.frame_count == graphs
    # another number of rows has other graphs
    generate(model, label[:2], Generation(decoding="sequential", compile=True, **options), seed=0)
    assert counter.frame_count == 2 * graphs


def test_known_cells_and_windows(stir, counter):
    """Rows whose cells are known at different places go through the same graphs; a second window has known context."""
    model = network(stir, codec="velocity", num_classes=0, positions="rope")
    canvas = torch.randint(0, 100, (2, 1, 4, 14), dtype=torch.uint8)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    known[0, :, :, :5] = known[1, :, 1:3, 3:9] = True
    given = {"canvas": canvas, "known": known, "seed": 0}
    drawn = generate(model, options=Generation(decoding="sequential", compile=True), **given)
    assert torch.equal(drawn, generate(model, options=EAGER, **given))
    assert torch.equal(drawn[known], canvas[known])
    assert counter.frame_count == 3


def test_modules_sample_in_eager_stance(stir, counter):
    """Blocks that were compiled for training are eager in sampling; graphs of steps are compiled all the same."""
    with torch.compiler.set_stance("force_eager"):
        generate(network(stir), options=Generation(decoding="sequential", compile=True), seed=0)
    assert counter.frame_count == 3


@pytest.mark.parametrize(
    ("generators", "options", "message"),
    [
        (["ar", "ar"], {"decoding": "jacobi"}, "set decoding to sequential"),
        (["ar", "ar"], {}, "set decoding to sequential"),  # auto, on rolls
        (["ar", "mar"], {"decoding": "sequential"}, "levels are all AR"),
        (["mar", "mar"], {}, "levels are all AR"),
        (["ar", "ar"], {"weights": "int8"}, "set weights to float32"),
        (["ar", "ar"], {"weights": "bfloat16"}, "set weights to float32"),
        (["ar", "ar"], {"use_cache": False}, "set use_cache to true"),
    ],
)
def test_what_compile_cannot_do_is_refused(generators, options, message):
    model = Fractal([(4, 8), (2, 4), (1, 1)], generators, codec="binary", **WIDTHS)
    with pytest.raises(ValueError, match=message):
        generate(model, options=Generation(compile=True, **options))


def test_without_a_compiler_there_is_one_error_before_any_work(monkeypatch, stir):
    def fail(*args, **options):
        raise RuntimeError("no C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace\n")

    compiled.check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(Fractal, "root", fail)
    with pytest.raises(
        ValueError,
        match=r"generation\.compile needs .* install a C\+\+ compiler .* or set .* to false\. .* no C\+\+ compiler$",
    ):
        generate(network(stir), options=Generation(decoding="sequential", compile=True))


@pytest.mark.slow
def test_the_compiler_makes_graphs_that_draw_the_same_symbols(stir):
    """Fails without a C++ compiler."""
    model = network(stir)
    for greedy in (True, False):
        options = {"decoding": "sequential", "greedy": greedy}
        drawn = generate(model, options=Generation(compile=True, **options), batch_size=4, seed=0)
        assert torch.equal(drawn, generate(model, options=Generation(**options), batch_size=4, seed=0))
