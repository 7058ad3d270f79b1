"""Small weights: what the layers compute, when copies are made again, samples and likelihoods with them."""

import copy
import gc

import pytest
import torch
from torch import nn

from litscale.models import small_weights as module
from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.small_weights import integer_product, is_large, quantize, small_weights

SMALL = ["bfloat16", "int8"]
HALVES = [torch.bfloat16, torch.float16]


def layer(n_in=512, n_out=520, seed=0, **options):
    """A linear layer whose output channels are up to a hundred times as large as others."""
    torch.manual_seed(seed)
    made = nn.Linear(n_in, n_out, **options)
    with torch.no_grad():
        made.weight *= torch.logspace(-1, 1, n_out)[:, None]
    return made


def inputs(n_in=512):
    """Tokens ``[2, 5, n_in]`` that differ by orders of magnitude, one of them zero."""
    x = torch.randn(2, 5, n_in, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 2, 5)[:, None]
    x[1, 2] = 0
    return x


def under(weights, linear, x):
    with torch.no_grad(), small_weights(linear, weights):
        return linear(x)


def largest(difference, whole):
    """The largest difference of each output channel in units of its largest number."""
    return difference.abs().amax((0, 1)) / whole.abs().amax((0, 1))


def relative(difference, linear, x):
    """The largest difference of each output channel in units of the lengths of token and channel."""
    lengths = x.float().norm(dim=-1, keepdim=True) * linear.weight.float().norm(dim=1)
    return (difference.abs() / lengths.clamp(min=1e-9)).amax((0, 1)).detach()


def rounded(x):
    """Tokens rounded to 255 steps each, by the definition."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return torch.where(step > 0, (x / step).round() * step, 0.0)


def fractal(generators=("ar", "mar"), **options):
    """A two-level model of 3 classes; the layers of its first level have 24 x 32 weights and more."""
    torch.manual_seed(0)
    shared = {"num_classes": 3, "codec": "rgb", "guiding": True} | options
    model = Fractal([(4, 8), (2, 2), (1, 1)], list(generators), [32, 16, 16], [2, 1, 1], [2] * 3, **shared)
    nn.init.normal_(model.leaf.bias)
    return model.eval()


@pytest.fixture
def every_layer(monkeypatch):
    """Layers of toys are large."""
    monkeypatch.setattr(module, "SMALLEST", 0)


def test_each_output_channel_has_its_own_step():
    small, steps = quantize(torch.tensor([[0.63, -0.3, 0.014], [-126.0, 3.0, 64.9], [0.0, 0.0, 0.0]]))
    assert small.tolist() == [[63, -30, 1], [-63, 2, 32], [0, 0, 0]]  # 1.5 steps are rounded to the even number
    assert small.dtype == torch.int8
    assert steps[:2].tolist() == pytest.approx([0.01, 2.0])


@pytest.mark.parametrize("bias", [True, False])
def test_an_int8_layer_is_the_layer_with_rounded_weights_and_inputs(bias):
    linear, x = layer(bias=bias), inputs()
    small, steps = quantize(linear.weight)
    with torch.no_grad():
        wanted = nn.functional.linear(rounded(x), small.float() * steps[:, None], linear.bias)
        exact = linear(x)
    given = under("int8", linear, x)
    assert given.dtype == torch.float32
    assert largest(given - wanted, exact).max() < 1e-5
    off = relative(given - exact, linear, x)
    assert 1e-4 < off.min() < off.max() < 4e-3  # in every channel, the smallest as well


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("fbgemm", [True, False])
def test_a_bfloat16_layer_is_the_layer_with_rounded_weights(monkeypatch, bias, fbgemm):
    linear, x = layer(bias=bias), inputs()
    with torch.no_grad():
        wanted = nn.functional.linear(x, linear.weight.bfloat16().float(), linear.bias)
    if not fbgemm:
        monkeypatch.setattr(module, "_has_fbgemm", lambda device: False)
    difference = largest(under("bfloat16", linear, x) - wanted, wanted).max()
    assert difference < (1e-5 if fbgemm else 0.04)  # without FBGEMM, inputs and results are bfloat16 as well


def test_float32_leaves_all_layers_alone():
    linear, x = layer(), inputs()
    with torch.no_grad():
        assert torch.equal(under("float32", linear, x), linear(x))


def test_gpus_integer_product_is_that_of_fbgemm(monkeypatch):
    small, steps = quantize(layer().weight)
    x = inputs() / 1000
    packed = module._packed_product(small, steps)(x)
    assert integer_product(small, steps, x).shape == packed.shape == (2, 5, 520)
    torch.testing.assert_close(integer_product(small, steps, x), packed, rtol=1e-5, atol=1e-5)
    many = x.repeat(5, 1, 1)  # 50 rows, which are padded to 56
    torch.testing.assert_close(integer_product(small, steps, many), packed.repeat(5, 1, 1), rtol=1e-5, atol=1e-5)
    # no more rows than GPUs ask for: 32, or the next multiple of 8
    rows, product = [], torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: rows.append(len(a)) or product(a, b))
    for copies in (1, 5):
        integer_product(small, steps, x.repeat(copies, 1, 1))
    assert rows == [32, 56]


def test_sums_of_the_largest_numbers_are_exact():
    linear = nn.Linear(4096, 64, bias=False)
    nn.init.constant_(linear.weight, 1.0)
    assert under("int8", linear, torch.ones(1, 4096)).unique().tolist() == pytest.approx([4096.0])
    assert under("int8", linear, -torch.ones(1, 4096)).unique().tolist() == pytest.approx([-4096.0])


def test_an_int8_row_does_not_depend_on_the_rows_beside_it():
    linear, x = layer(), inputs()
    together = under("int8", linear, x)
    for row in range(2):
        for token in range(5):
            alone = under("int8", linear, x[row : row + 1, token : token + 1])
            assert torch.equal(alone[0, 0], together[row, token])


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_halves_and_doubles_stay_what_they_are(weights, dtype):
    linear, x = nn.Linear(512, 520).to(dtype), (inputs() / 10).to(dtype)
    given = under(weights, linear, x)
    assert given.dtype == dtype
    assert relative(given.float() - linear(x).float(), linear, x).max() < 0.02


def test_only_large_layers_are_changed():
    assert is_large(nn.Linear(512, 512))
    assert not is_large(nn.Linear(512, 504))
    assert not is_large(nn.Linear(516, 512))  # GPUs multiply rows of 8 n numbers only
    assert not is_large(nn.Linear(512, 516))
    assert not is_large(nn.Embedding(512, 512))


@pytest.fixture
def made(monkeypatch):
    """The weights that copies were made of, one after the other."""
    seen = []
    original = module._int8
    monkeypatch.setattr(module, "_int8", lambda weight: seen.append(weight) or original(weight))
    return seen


def step(linear, fused):
    optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-5, fused=fused)
    linear(inputs()).square().mean().backward()
    optimizer.step()


CHANGES = {
    "a training step": lambda linear: step(linear, fused=False),
    "a fused training step": lambda linear: step(linear, fused=True),
    "a swap of averages": lambda linear: linear.weight.data.copy_(linear.weight.data * 1.01),
    "loading": lambda linear: linear.load_state_dict(layer(seed=3).state_dict()),
    "loading by assignment": lambda linear: linear.load_state_dict(layer(seed=3).state_dict(), assign=True),
    "an order of channels": lambda linear: linear.weight.data.copy_(linear.weight.data.flip(0)),
    "an order of inputs": lambda linear: linear.weight.data.copy_(linear.weight.data.flip(1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_made_once_and_anew_after(change, made):
    linear, x = layer(), inputs()
    for _ in range(3):
        under("int8", linear, x)
    assert len(made) == 1
    CHANGES[change](linear)
    after = under("int8", linear, x)
    assert torch.equal(after, under("int8", copy.deepcopy(linear), x))
    assert len(made) == 3  # the third is that of the deep copy


def test_kinds_have_copies_of_their_own_and_biases_have_none(made):
    linear, x = layer(), inputs()
    eight, sixteen = (under(weights, linear, x) for weights in ("int8", "bfloat16"))
    assert not torch.equal(eight, sixteen)
    assert torch.equal(under("int8", linear, x), eight)
    with torch.no_grad():
        linear.bias.add_(1.0)
    torch.testing.assert_close(under("int8", linear, x), eight + 1)
    assert len(made) == 1


def test_copies_go_with_their_layers():
    linear = layer()
    under("int8", linear, inputs())
    gc.collect()  # layers of other tests
    before = len(module._copies)
    del linear
    gc.collect()
    assert len(module._copies) == before - 1


def test_parameters_and_state_dict_stay_and_layers_are_as_before_afterwards():
    network = nn.Sequential(layer(), nn.GELU(), layer(520, 512, bias=False))
    names, x = list(network.state_dict()), inputs()
    before = network(x).detach()

    def interrupted():
        with torch.no_grad(), small_weights(network, "int8"):
            assert list(network.state_dict()) == names
            assert not torch.equal(network(x), before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(network(x).detach(), before)
    assert not any("forward" in vars(each) for each in network.modules())


@pytest.mark.parametrize("weights", SMALL)
def test_weights_that_change_nothing_are_refused(weights):
    """Where no layer is large enough, equal scores would look like small weights without a loss."""
    wanted = rf"weights {weights} changes nothing: no linear layer has 262144 weights .*set generation.weights to float"
    with pytest.raises(ValueError, match=wanted), small_weights(layer(504, 512), weights):
        pass
    with pytest.raises(ValueError, match=wanted):
        generate(fractal(), torch.tensor([1]), Generation(2, weights=weights))
    with small_weights(layer(504, 512), "float32"):
        pass


def test_a_draft_need_not_be_large(monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 32 * 64)
    model = fractal(["ar", "ar"])
    draft = Fractal([(4, 8), (2, 2), (1, 1)], ["ar", "ar"], [8] * 3, [1] * 3, [2] * 3, num_classes=3, codec="rgb")
    options = Generation(decoding="jacobi", guess="draft", weights="bfloat16")
    drawn = generate(model, torch.tensor([1]), options, seed=0, draft=draft.eval())
    assert torch.equal(drawn, generate(model, torch.tensor([1]), Generation(weights="bfloat16"), seed=0))


def test_a_device_without_a_fast_product_is_refused():
    linear = nn.Linear(512, 512, device="meta")
    wanted = r"weights int8 need a CUDA GPU or an x86 .* for device meta: give weights bfloat16 or float32"
    with pytest.raises(ValueError, match=wanted), small_weights(linear, "int8"):
        pass
    with small_weights(linear, "bfloat16"):
        assert linear(torch.empty(3, 512, device="meta")).shape == (3, 512)


KINDS = [("ar", "ar"), ("mar", "mar"), ("mar", "ar")]


@pytest.mark.parametrize("generators", KINDS)
def test_bfloat16_samples_are_those_of_the_rounded_network(every_layer, generators):
    model = fractal(generators)
    other = copy.deepcopy(model)
    for each in other.modules():
        if isinstance(each, nn.Linear) and is_large(each):
            each.weight.data = each.weight.data.bfloat16().float()
    label = torch.tensor([0, 2, -1])
    options = {"iterations": 2, "cfg": 3.0, "temperature": 0.7}
    small = generate(model, label, Generation(**options, weights="bfloat16"), seed=3)
    assert torch.equal(small, generate(other, label, Generation(**options), seed=3))


@pytest.mark.parametrize("generators", KINDS)
@pytest.mark.parametrize("weights", SMALL)
def test_samples_repeat_themselves_and_leave_those_of_float32_alone(every_layer, generators, weights):
    model = fractal(generators)
    plain, small = Generation(2, cfg=3.0), Generation(2, cfg=3.0, weights=weights)
    label, canvas = torch.tensor([0, 2]), torch.randint(0, 256, (2, 3, 4, 8), dtype=torch.uint8)
    known = torch.rand(2, 1, 4, 8) < 0.3
    before = generate(model, label, plain, canvas=canvas, known=known, seed=1)
    drawn = generate(model, label, small, canvas=canvas, known=known, seed=1)
    assert torch.equal(torch.where(known, drawn, 0), torch.where(known, canvas, 0))
    assert torch.equal(drawn, generate(model, label, small, canvas=canvas, known=known, seed=1))
    assert torch.equal(before, generate(model, label, plain, canvas=canvas, known=known, seed=1))


@pytest.mark.parametrize("generators", KINDS)
@pytest.mark.parametrize("weights", SMALL)
def test_likelihoods_of_small_weights_are_close(every_layer, stir, generators, weights):
    model = stir(fractal(generators), 0.2)
    canvas = torch.randint(0, 256, (8, 3, 4, 8), dtype=torch.uint8)
    plain = model.nll(canvas, seed=0)
    with small_weights(model, weights):
        small = model.nll(canvas, seed=0)
    assert not torch.equal(plain, small)
    assert small.mean().item() == pytest.approx(plain.mean().item(), rel=5e-3)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("weights", SMALL)
def test_half_precision_networks_generate(every_layer, dtype, weights):
    drawn = generate(fractal().to(dtype), torch.tensor([1]), Generation(2, cfg=2.0, weights=weights), seed=0)
    assert drawn.shape == (1, 3, 4, 8)
