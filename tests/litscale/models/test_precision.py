"""Half-precision weights: what stays in float32, how close scores are; torch's default dtype changes no number."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from var_toys import vqvae

from litscale.models.codec import Codec
from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.precision import FullPrecision, at_least_float32
from litscale.models.var import VAR, VARGeneration
from litscale.models.var import generate as generate_var

HALVES = [torch.bfloat16, torch.float16]


@contextmanager
def default_dtype(dtype):
    """As Lightning runs the steps of bf16-true."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fractal(generators, codec="rgb"):
    torch.manual_seed(0)
    sizes = [(4, 8), (2, 2), (1, 1)]
    options = {"num_classes": 3, "guiding": True, "codec": codec, "velocity_bins": 3}
    model = Fractal(sizes, generators, [32, 16, 16], [2, 1, 1], [2] * 3, **options)
    nn.init.normal_(model.leaf.bias)
    return model.eval()


def canvases(model, count=5):
    generator = torch.Generator().manual_seed(1)
    shape = (count, model.codec.channels, 4, 8)
    return torch.randint(0, model.codec.alphabet, shape, generator=generator).byte()


def var():
    torch.manual_seed(1)
    model = VAR(vqvae(), num_classes=3, depth=2, width=16, heads=2)
    nn.init.normal_(model.head.weight, std=0.5)
    return model.eval()


@pytest.mark.parametrize(
    ("generators", "codec", "order"),
    [(["mar", "ar"], "rgb", "random"), (["ar", "mar"], "onset_hold", "confidence"), (["mar", "mar"], "gray", "raster")],
)
def test_torchs_default_dtype_changes_no_fractal_number(generators, codec, order):
    model = fractal(generators, codec)
    canvas, label = canvases(model), torch.tensor([0, 1, 2, -1, 0])
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with default_dtype(dtype):
            nats = model.nll_of_passes(canvas, label, 2, seed=0)
            torch.manual_seed(0)
            unkeyed = model.nll(canvas, label)
            training = model.train()(canvas, label, with_entropy=True).loss.detach()
            drawn = generate(model, label, Generation(cfg=2.0, iterations=3, order=order), seed=0)
            built = fractal(generators, codec).features.table
        found.append((nats, unkeyed, training, drawn, built))
    for first, second in zip(*found, strict=True):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)


def test_torchs_default_dtype_changes_no_number_of_var():
    model, found = var(), []
    for dtype in (torch.float32, torch.bfloat16):
        with default_dtype(dtype):
            images = Codec("velocity", 3).to_planes(torch.arange(64).view(1, 1, 8, 8).remainder(4).byte())
            both = Codec("onset_hold", 3).to_planes(torch.arange(5).view(1, 1, 1, 5).byte())
            tokens = model.vqvae.encode(images)
            logits = model(torch.tensor([1]), model.vqvae.quantizer.teacher_input(tokens))
            made = generate_var(model, [0, 1], VARGeneration(cfg=1.5, top_p=0.9), seed=0)
            smooth = generate_var(model, [0, 1], VARGeneration(cfg=1.5, smooth=True), seed=0).images
            with torch.no_grad():
                out = model.vqvae(images)
            model.vqvae.quantizer.record_hits(out.counts)
            hits = model.vqvae.quantizer.hits.clone()
            model.vqvae.quantizer.hits.fill_(1)
            model.vqvae.quantizer.hit_updates.fill_(3)
        numbers = [images, both, *tokens, logits, *made.tokens, made.images, smooth, out.images, out.loss, hits]
        found.append(numbers)
    found[0][-1] = found[1][-1]  # the first call's average started again
    for first, second in zip(*found, strict=True):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("generators", [["ar", "ar"], ["mar", "mar"], ["mar", "ar"]])
def test_likelihoods_of_half_weights_are_close(dtype, generators):
    model = fractal(generators)
    canvas, label = canvases(model, 8), torch.arange(8) % 4 - 1
    exact = model.nll(canvas, label, passes=2, seed=0)
    rough = model.to(dtype).nll(canvas, label, passes=2, seed=0)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, rtol=5e-3, atol=0)
    assert rough.mean().item() == pytest.approx(exact.mean().item(), rel=2e-3)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("generator", "order"), [("ar", "random"), ("mar", "random"), ("mar", "confidence")])
def test_half_weights_generate(dtype, generator, order):
    model = fractal([generator] * 2, "gray").to(dtype)
    label = torch.tensor([0, 2])
    drawn = [generate(model, label, Generation(cfg=2.0, iterations=2, order=order), seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_codec_stays_in_float32_and_follows_to_wider_dtypes():
    model = fractal(["ar", "ar"])
    table = model.features.table.clone()
    model.to(torch.bfloat16)
    assert model.no_class.dtype == torch.bfloat16
    assert torch.equal(model.features.table, table)
    level, exact = model.features.guide(torch.full((1, 3, 2, 2), 201, dtype=torch.uint8))
    assert level.tolist() == [[201, 201, 201]]
    assert exact.dtype == torch.float32
    assert model.double().features.table.dtype == torch.float64


@pytest.mark.parametrize("dtype", HALVES)
def test_a_tokenizer_stays_in_float32_in_half_a_transformer(dtype):
    model = var()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens, labels = model.vqvae.encode(images), torch.tensor([0, 1, 2])
    inputs = model.vqvae.quantizer.teacher_input(tokens)
    with torch.no_grad():
        exact = model(labels, inputs)
        model.to(dtype)
        rough = model(labels, inputs)
    assert model.head.weight.dtype == dtype
    assert {value.dtype for value in model.vqvae.parameters()} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(model.vqvae.encode(images), tokens, strict=True))
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, atol=0.1)
    assert generate_var(model, labels, seed=0).images.isfinite().all()


def test_only_half_precision_is_kept_out():
    convert = at_least_float32(lambda tensor: tensor.to(torch.bfloat16))
    third = torch.tensor(1 / 3)
    assert convert(third) is third
    assert at_least_float32(lambda tensor: tensor.to("meta"))(third).device.type == "meta"
    assert at_least_float32(torch.Tensor.double)(third).dtype == torch.float64

    class Kept(FullPrecision, nn.Linear):
        """A layer that stays."""

    whole = nn.Sequential(Kept(2, 2), nn.Linear(2, 2)).half()
    assert [layer.weight.dtype for layer in whole] == [torch.float32, torch.float16]
