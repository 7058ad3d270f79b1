"""Every module under bf16-true and 16-true: scores close to float32's for all batch sizes, generation, no training."""

import pytest
import torch
from sdvar_lit_toys import Patches, lit_sdvar, speculative
from torch.utils.data import DataLoader
from var_toys import ToyImages, lit_var, lit_vqvae, quiet

from lit_models import Generation
from litscale.metrics.mean import Mean

HALVES = ["bf16-true", "16-true"]


def request():
    """A batch of ``predict``."""
    canvas = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    batch = {"canvas": canvas, "known": known, "seed": 5, "index": torch.arange(2)}
    return DataLoader([batch], batch_size=None)


def scored(folder, module, data, *, precision, batch_size, stage="validate"):
    data.batch_size = batch_size
    (found,) = getattr(quiet(folder, precision=precision), stage)(module, datamodule=data, verbose=False)
    return found


@pytest.mark.parametrize("generators", [("ar", "ar"), ("mar", "mar")])
def test_fractal_scores(tmp_path, toy_data, toy_module, generators):
    def score(precision, batch_size, stage):
        module = toy_module(generators, codec="gray", nll_passes=2)
        torch.nn.init.normal_(module.network.leaf.bias)  # likelihoods that differ from canvas to canvas
        found = scored(tmp_path, module, data, precision=precision, batch_size=batch_size, stage=stage)
        wanted = torch.float32 if precision == "32-true" else module.network.leaf.bias.dtype
        assert module.network.leaf.bias.dtype == wanted
        return found

    data = toy_data(windows=16)
    data.alphabet = 256
    exact = score("32-true", 16, "test")
    for batch_size in (1, 3):
        assert score("32-true", batch_size, "test") == pytest.approx(exact, rel=2e-6)
    for precision in HALVES:
        for batch_size in (1, 16):
            assert score(precision, batch_size, "test") == pytest.approx(
                exact, rel=2e-3 if generators[0] == "ar" else 5e-3
            )


def test_sums_do_not_depend_on_what_torch_s_default_dtype_was_when_the_metric_moved():
    mean = Mean()
    try:
        torch.set_default_dtype(torch.bfloat16)
        mean.to("cpu")  # as Lightning moves what is logged
    finally:
        torch.set_default_dtype(torch.float32)
    mean.update(torch.tensor([283.5625, 283.4375, 283.6875, 283.4375]))
    mean.update(torch.tensor([141.9375]))
    assert mean.compute().item() == pytest.approx((4 * 283.53125 + 141.9375) / 5, rel=1e-6)


@pytest.mark.parametrize("precision", HALVES)
def test_var_scores(tmp_path, precision):
    exact = scored(tmp_path, lit_var(), ToyImages(), precision="32-true", batch_size=16)
    for batch_size in (3, 16):
        module = lit_var()
        found = scored(tmp_path, module, ToyImages(), precision=precision, batch_size=batch_size)
        assert module.network.head.weight.dtype != torch.float32
        for name, value in exact.items():
            # 16 images: a token more or less that is the likeliest is 1/16 of accuracy at the first scale
            near = {"abs": 1 / 16 + 1e-6} if "accuracy" in name else {"rel": 5e-3}
            assert found[name] == pytest.approx(value, **near), name


@pytest.mark.parametrize("precision", HALVES)
def test_tokenizer_scores_and_tokens_are_those_of_float32(tmp_path, precision):
    made = {}
    for given in ("32-true", precision):
        module = lit_vqvae(features=Patches())
        made[given] = scored(tmp_path, module, ToyImages(), precision=given, batch_size=3, stage="test")
        (batch,) = quiet(tmp_path, precision=given).predict(module, DataLoader(ToyImages(5).items(), batch_size=5))
        made[given, "tokens"] = batch["tokens"]
        assert module.network.decoder.conv_out.weight.dtype == torch.float32
    assert made[precision] == made["32-true"]
    assert torch.equal(made[precision, "tokens"], made["32-true", "tokens"])
    assert "test/rfid" in made[precision]


@pytest.mark.parametrize("precision", HALVES)
def test_speculative_scores(tmp_path, precision):
    exact, found = (
        scored(tmp_path, lit_sdvar(**speculative(gamma=2)), ToyImages(8), precision=given, batch_size=4)
        for given in ("32-true", precision)
    )
    for name in ("val/divergence", "val/overlap"):
        assert found[name] == pytest.approx(exact[name], rel=0.02)
    # a token more or less that both draw decides whether a scale is accepted
    name = "val/accepted_scales_per_call"
    assert found[name] == pytest.approx(exact[name], abs=0.15)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", ["ar", "mar", "var", "sdvar"])
def test_generates(tmp_path, toy_module, precision, name):
    if name in ("ar", "mar"):
        module = toy_module((name, name), generation=Generation(iterations=2, order="confidence"))
    else:
        module = lit_var() if name == "var" else lit_sdvar()
    (made,) = quiet(tmp_path, precision=precision).predict(module, request())
    assert made["canvas"].shape == (2, 1, 8, 8)
    assert made["canvas"].dtype == torch.uint8


@pytest.mark.parametrize("precision", HALVES)
def test_training_is_refused_by_every_module(tmp_path, toy_data, toy_module, precision):
    for module, data in (
        (toy_module(), toy_data()),
        (lit_var(), ToyImages()),
        (lit_vqvae(), ToyImages()),
        (lit_sdvar(), ToyImages()),
    ):
        with pytest.raises(ValueError, match=rf"trainer.precision {precision} cannot train.*give bf16-mixed"):
            quiet(tmp_path, precision=precision, max_steps=1).fit(module, datamodule=data)


def test_sums_of_metrics_stay_wide(toy_module):
    module = toy_module(nll_passes=2).to(torch.bfloat16)
    metrics = module.likelihoods["val"]
    assert module.network.no_class.dtype == torch.bfloat16
    assert metrics["nats_per_step"].mean_value.dtype == torch.float32
    assert metrics["nats_per_step_standard_error"].variance.dtype == torch.float64
    metrics["nats_per_step"].reset()
    assert metrics["nats_per_step"].mean_value.dtype == torch.float32
    assert lit_sdvar().half().scores["val"]["overlap"].weight.dtype == torch.float32
    assert lit_var().half().token_metrics["val"]["accuracy"].mean_value.dtype == torch.float32
