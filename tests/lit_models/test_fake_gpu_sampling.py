"""Sampling runs on a GPU, as far as fake tensors can tell on any machine; see `FakeGPU`.

Two things are read of the GPU by design, and the tests answer them: how far guesses of jacobi decoding have settled (in
the first pass one canvas has, and of the others the first symbol, and in the second all have), and which patches have
cells to fill where some cells are known (all have). MAR with known cells is left out.
"""

import pytest
import torch
from fake_gpu import GPU, FakeGPU, answer_reads, moved
from torch._subclasses.fake_tensor import DataDependentOutputException
from var_toys import vqvae

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.var import VAR, VARGeneration
from litscale.models.var import generate as generate_images

BEFORE = {"preceding_columns": 2, "preceding_margin": 1, "preceding_average": 3, "periods": [2]}


def network(generators, **options):
    sizes = [(2, 2), (2, 1), (1, 1)] if len(generators) == 2 else [(1, 2), (1, 1)]  # fake operators take long
    options = {"codec": "onset_hold", "velocity_bins": 2, "num_classes": 3, "scan": "column_major"} | options
    return Fractal(sizes, generators, *([number] * len(sizes) for number in (8, 1, 2)), **options)


def sampled(model, monkeypatch, known=None, **options):
    """Canvases of two classes, drawn on a fake GPU."""
    canvas = torch.zeros(2, model.codec.channels, *model.sizes[0], dtype=torch.uint8)
    generation = Generation(**{"decoding": "sequential", "iterations": 2} | options)
    with FakeGPU() as mode:
        moved(model, mode, monkeypatch)
        return generate(model, torch.tensor([0, 2]), generation, canvas=canvas, known=known, seed=1)


CASES = {
    "ar": (["ar"], {}, {}),
    "ar, two levels, guided": (["ar", "ar"], BEFORE | {"guiding": True}, {"cfg": 3.0}),
    "mar, two levels, guided": (["mar", "mar"], {}, {"cfg": 3.0}),
    "mar, raster": (["mar"], {"codec": "rgb"}, {"order": "raster", "greedy": True}),
    "mar, confidence": (["mar"], {}, {"order": "confidence", "token_cache": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_fractal_models(monkeypatch, name):
    generators, options, generation = CASES[name]
    assert sampled(network(generators, **options), monkeypatch, **generation).device == GPU


def test_known_cells(monkeypatch):
    answer_reads(monkeypatch, last=10**6)
    known = torch.tensor([True, False]).expand(2, 1, 1, 2)
    assert sampled(network(["ar"]), monkeypatch, known, cfg=3.0).device == GPU


def test_jacobi_decoding(monkeypatch):
    answer_reads(monkeypatch, last=10**6)
    options = {"decoding": "jacobi", "cfg": 3.0}
    assert sampled(network(["ar", "ar"]), monkeypatch, **options).device == GPU


def test_var(monkeypatch):
    model = VAR(vqvae(patch_nums=(1, 2)), num_classes=3, depth=1, width=16, heads=2)
    options = VARGeneration(cfg=2.0, top_k=5, top_p=0.9, cfg_until=1)
    with FakeGPU() as mode:
        moved(model, mode, monkeypatch)
        result = generate_images(model, [0, 2], options, seed=1)
        assert {value.device for value in (*result.tokens, result.images)} == {GPU}


def test_what_is_left_on_the_cpu_or_read_is_noticed(monkeypatch):
    model = network(["ar"])
    del model.leaf._parameters["bias"]  # a tensor that no buffer or parameter holds is not moved
    model.leaf.bias = torch.zeros(model.leaf.channels, model.codec.alphabet)
    with pytest.raises(RuntimeError, match="device"):
        sampled(model, monkeypatch)
    with FakeGPU():
        assert torch.arange(3).tolist() == [0, 1, 2]
        with pytest.raises(DataDependentOutputException):
            torch.arange(3, device=GPU).tolist()
