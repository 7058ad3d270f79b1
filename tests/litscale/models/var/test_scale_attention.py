"""The three ways to compute scale-causal attention give the same."""

from itertools import accumulate

import pytest
import torch
from golden_var import NAMES, transformer
from torch.nn import functional as F  # noqa: N812

from litscale.models.var import VAR, VQVAE
from litscale.models.var.scale_attention import attend, scale_causal

SIDES = (1, 2, 4)
BOUNDS = (0, *accumulate(side**2 for side in SIDES))
SCALE_OF = torch.arange(3).repeat_interleave(torch.tensor(SIDES) ** 2)
MAY_ATTEND = SCALE_OF[:, None] >= SCALE_OF


def passed(name, attention, scales):
    """Logits of the leading scales and the gradients of a training pass."""
    model = transformer(name, attention=attention, drop_path=0.3).train()
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(model.vocab, (2, side**2), generator=generator) for side in model.patch_nums]
    inputs = model.vqvae.quantizer.teacher_input(tokens)[:, : model.bounds[scales] - 1]
    torch.manual_seed(0)
    logits = model(torch.tensor([3, 6]), inputs)
    F.cross_entropy(logits.flatten(0, 1), torch.cat(tokens[:scales], 1).flatten()).backward()
    return logits, {key: value.grad for key, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scales", [1, 2, 4])
def test_a_call_for_each_scale_trains_as_the_mask_does(name, scales):
    (dense, expected), (logits, gradients) = (passed(name, attention, scales) for attention in ("dense", "scales"))
    torch.testing.assert_close(logits, dense, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(gradients[key], value, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scales", [1, 2, 4])
@torch.no_grad()
def test_flex_evaluates_as_the_mask_does(name, scales):
    models = [transformer(name, attention=attention) for attention in ("dense", "flex")]
    inputs = torch.randn(2, models[0].bounds[scales] - 1, models[0].vqvae.dim)
    dense, flex = (model(torch.tensor([3, 6]), inputs) for model in models)
    torch.testing.assert_close(flex, dense, atol=1e-5, rtol=1e-5)
    assert models[0].state_dict().keys() == models[1].state_dict().keys()


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("device", "tolerance"), [("cpu", 1e-4), pytest.param("cuda", 1e-2, marks=NO_GPU)])  # TF32
@pytest.mark.parametrize("attention", ["scales", "flex"])
def test_gradients_are_those_of_the_mask(attention, device, tolerance, monkeypatch):
    # on a CPU torch refuses gradients of FlexAttention, although its implementation without kernels has them
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None, raising=False)
    qkv = torch.randn(3, 2, 4, 21, 64, device=device, requires_grad=True)
    found = []
    for kind in ("dense", attention):
        with torch.no_grad():
            mask = scale_causal(kind, MAY_ATTEND.to(device), BOUNDS)
        made = attend(*qkv, mask, 0.1)
        found.append((made, *torch.autograd.grad(made.square().sum(), qkv)))
    for value, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(value, expected, atol=tolerance, rtol=tolerance)


def test_dropout_keeps_the_expectation():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 21, 8).expand(3, 2000, 2, 21, 8)
    dropped = attend(q, k, v, BOUNDS, 0.3, dropout=0.5)
    assert dropped.std(0).min() > 0.01
    torch.testing.assert_close(dropped.mean(0), attend(q, k, v, MAY_ATTEND, 0.3)[0], atol=0.15, rtol=0)


def test_the_default_depends_on_device_and_length():
    long = torch.ones(256, 256, dtype=torch.bool)
    assert scale_causal(None, long, (0, 256)) == (0, 256)
    assert scale_causal(None, MAY_ATTEND, BOUNDS) is MAY_ATTEND
    elsewhere = long.to("meta")
    assert scale_causal(None, elsewhere, (0, 256)) is elsewhere


def build(**options):
    return VAR(
        VQVAE(SIDES, vocab=16, dim=8, channels=32, multipliers=(1, 1), blocks=1),
        num_classes=7,
        depth=1,
        width=16,
        heads=2,
        **options,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "sparse"}, r"attention must be one of dense, scales, flex or null, not 'sparse'"),
        ({"attention": "flex", "attn_dropout": 0.1}, r"flex drops no weights: make attn_dropout 0, not 0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_flex_does_not_train_on_a_cpu():
    with pytest.raises(ValueError, match=r"attention flex has no backward pass on a CPU: take dense or scales"):
        build(attention="flex")(None, torch.randn(1, 20, 8))
