"""LitVQVAE in a trainer: losses, discriminator, codebook, metrics, resuming, errors."""

import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.image import structural_similarity_index_measure
from var_toys import Outputs, ToyImages, lit_vqvae, quiet, resumed, same, vqvae

from lit_models import DiscriminatorConfig, LitVQVAE, Optimization, TokenizerLoss
from lit_models.optimization import parameter_groups
from lit_models.tokenizer.codebook import perplexity, usage
from litscale.models.var.discriminator import adaptive_weight, hinge_loss

DISCRIMINATOR = DiscriminatorConfig(weight=0.5, width=8, layers=1, consistency=1.0)


def test_report_names_every_term_and_scale(tmp_path):
    seen = Outputs()
    quiet(tmp_path, max_steps=1, callbacks=[seen]).fit(lit_vqvae(discriminator=DISCRIMINATOR), datamodule=ToyImages())
    scales = {f"{name}/scale_{k}" for name in ("usage", "perplexity") for k in range(3)}
    terms = {f"loss/{name}" for name in ("l1", "l2", "codebook", "commitment", "adversarial", "discriminator")}
    assert seen.reports[0].keys() == scales | terms | {"adversarial_weight"}
    report = seen.reports[0]
    parts = 0.2 * report["loss/l1"] + report["loss/l2"] + report["loss/codebook"] + 0.25 * report["loss/commitment"]
    parts += report["adversarial_weight"] * report["loss/adversarial"] + report["loss/discriminator"]
    assert seen.losses[0] == pytest.approx(parts.item(), rel=1e-5)


def test_one_backward_pass_is_two_optimisers_that_take_turns(tmp_path):
    options = Optimization(lr=1e-2, schedule="constant")
    discriminator = DiscriminatorConfig(weight=0.5, width=8, layers=1)
    module, data = lit_vqvae(discriminator=discriminator, optimization=options, restart_every=0), ToyImages()
    twin = lit_vqvae(discriminator=discriminator, optimization=options)
    twin.load_state_dict(module.state_dict())
    quiet(tmp_path, max_steps=3, gradient_clip_val=0.3).fit(module, datamodule=data)
    parts = (twin.network, twin.discriminator)
    makers = [
        torch.optim.AdamW(parameter_groups(part, options.weight_decay), 1e-2, options.betas, fused=True)
        for part in parts
    ]
    for batch in list(data.train_dataloader())[:3]:
        real = twin.codec.to_planes(batch["canvas"])
        out = twin.network(real)
        loss = 0.2 * F.l1_loss(out.images, real) + F.mse_loss(out.images, real)
        judged = -twin.discriminator(out.images).mean()
        last = twin.network.decoder.conv_out.weight
        weight = adaptive_weight(*(torch.autograd.grad(term, last, retain_graph=True)[0] for term in (loss, judged)))
        twin.zero_grad()
        (loss + 0.5 * weight * judged + out.loss).backward()
        nn.utils.clip_grad_norm_(twin.network.parameters(), 0.3)
        makers[0].step()
        twin.zero_grad()
        hinge_loss(*map(twin.discriminator, (real, out.images.detach()))).backward()
        nn.utils.clip_grad_norm_(twin.discriminator.parameters(), 0.3)
        makers[1].step()
    for (name, ours), theirs in zip(module.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name, atol=1e-6, rtol=1e-4)


def test_the_discriminator_rests_until_its_start(tmp_path):
    class Weights(Callback):
        def __init__(self):
            self.weights = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.weights.append(pl_module.discriminator.body[0].weight.detach().clone())

    seen, weights = Outputs(), Weights()
    discriminator = DiscriminatorConfig(weight=0.5, adaptive=False, start_step=2, warmup_steps=2, width=8, layers=1)
    module = lit_vqvae(discriminator=discriminator)
    before = module.discriminator.body[0].weight.detach().clone()
    quiet(tmp_path, max_steps=4, callbacks=[seen, weights]).fit(module, datamodule=ToyImages())
    assert [report["adversarial_weight"].item() for report in seen.reports] == [0, 0, 0.25, 0.5]
    assert torch.equal(weights.weights[1], before)
    assert not torch.equal(weights.weights[2], before)
    assert not any(seen.reports[1][f"loss/{name}"] for name in ("adversarial", "discriminator"))


def test_unused_codes_are_restarted_from_what_all_scales_looked_up(tmp_path):
    module = lit_vqvae(restart_every=2, vocab=64)
    with torch.no_grad():
        module.network.quantizer.codebook.weight[8:] = 100.0  # far from all features
    restarted = []
    original = module.network.quantizer.restart

    def restart(dead, vectors):
        restarted.append((dead.clone(), vectors[dead], [queries.clone() for queries in module._queries]))
        original(dead, vectors)

    module.network.quantizer.restart = restart
    quiet(tmp_path, max_steps=2).fit(module, datamodule=ToyImages())
    ((dead, vectors, queries),) = restarted
    assert dead[8:].all()
    assert not dead.all()
    assert torch.equal(module.network.quantizer.codebook.weight[dead], vectors)
    for scale in queries:
        rows = scale.flatten(0, 1)
        assert (vectors[:, None] == rows).all(-1).any()
    assert not module.drawn.any()
    late = lit_vqvae(restart_every=2, restart_until=1, vocab=64)
    with torch.no_grad():
        late.network.quantizer.codebook.weight[8:] = 100.0
    quiet(tmp_path, max_steps=2).fit(late, datamodule=ToyImages())
    assert (late.network.quantizer.codebook.weight[8:] > 99).all()


def test_the_alarm_is_asked_in_validations_of_a_training(tmp_path):
    module, seen = lit_vqvae(usage_alarm=100.0), []
    check = module.usage_alarm.check
    module.usage_alarm.check = lambda scores: (seen.append(scores["usage/scale_1"]), check(scores))
    trainer = quiet(tmp_path, max_steps=2, val_check_interval=1, num_sanity_val_steps=1)
    with pytest.warns(UserWarning, match="codes fall out of use"):
        trainer.fit(module, datamodule=ToyImages())
    assert len(seen) == 2
    trainer.validate(module, datamodule=ToyImages())
    assert len(seen) == 2


def test_entropy_is_a_term_of_the_report_and_the_loss(tmp_path):
    seen, module = Outputs(), lit_vqvae(entropy=0.5, simvq=True, rotation=True, restart_every=0)
    quiet(tmp_path, max_steps=1, callbacks=[seen]).fit(module, datamodule=ToyImages())
    report = seen.reports[0]
    parts = 0.2 * report["loss/l1"] + report["loss/l2"] + report["loss/codebook"] + 0.25 * report["loss/commitment"]
    assert -1 < report["loss/entropy"] < 0
    assert seen.losses[0] == pytest.approx((parts + 0.5 * report["loss/entropy"]).item(), rel=1e-5)


class Mean(nn.Module):
    """Toy features: the four quadrants' means."""

    num_features = 4

    def forward(self, canvases):
        return F.adaptive_avg_pool2d(canvases.float() / 255, 2).flatten(1)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_metrics_are_those_of_the_whole_split(tmp_path, stage):
    module, data = lit_vqvae(features=Mean()).eval(), ToyImages(images=6)  # a batch of 4 and one of 2
    found = getattr(quiet(tmp_path), stage)(module, datamodule=data, verbose=False)[0]
    prefix = "val" if stage == "validate" else "test"
    with torch.no_grad():
        real = module.codec.to_planes(data.canvas)
        out = module.network(real)
    error = (out.images.clamp(-1, 1) - real).square().mean().item()
    assert found[f"{prefix}/psnr"] == pytest.approx(10 * math.log10(4 / error), abs=1e-4)
    assert found[f"{prefix}/usage/scale_2"] == pytest.approx(usage(out.counts)[2].item())
    assert found[f"{prefix}/perplexity/scale_1"] == pytest.approx(perplexity(out.counts)[1].item(), rel=1e-5)
    assert found[f"{prefix}/rfid"] > 0
    similarity = structural_similarity_index_measure(out.images.clamp(-1, 1), real, data_range=2.0)
    assert found[f"{prefix}/ssim"] == pytest.approx(similarity.item(), abs=1e-5)
    again = getattr(quiet(tmp_path), stage)(module, datamodule=data, verbose=False)[0]
    assert again == found


def test_rolls_are_measured_by_their_notes(tmp_path):
    class Rolls(ToyImages):
        alphabet = 4

        def __init__(self):
            super().__init__(images=4)
            self.canvas = self.canvas % 4

    module = lit_vqvae(codec="onset_hold", velocity_bins=2, in_channels=2)
    found = quiet(tmp_path).validate(module, datamodule=Rolls(), verbose=False)[0]
    canvas = Rolls().canvas
    with torch.no_grad():
        made = module.codec.to_symbols(module.eval().network(module.codec.to_planes(canvas)).images)
    hit = ((made > 0) & (canvas > 0)).sum()
    assert found["val/note_f1"] == pytest.approx((2 * hit / ((made > 0).sum() + (canvas > 0).sum())).item(), rel=1e-5)
    quiet(tmp_path, max_steps=2).fit(module, datamodule=Rolls())


def test_lpips_takes_local_weights(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    weights = squeezenet1_1().state_dict()
    torch.save(weights, tmp_path / "squeeze.pth")
    given = {"perceptual_net": "squeeze", "perceptual_weights": str(tmp_path / "squeeze.pth")}
    module = lit_vqvae(loss=TokenizerLoss(perceptual=0.5, **given))
    lpips, images = module._tools["lpips"], torch.rand(2, 1, 32, 32) * 2 - 1
    assert lpips(images, images).tolist() == [0, 0]
    assert (lpips(images, -images) > 0).all()
    loaded = lpips.network.net.slices[0][0].weight
    assert torch.equal(loaded, weights["features.0.weight"])
    assert not any("slices" in name for name in module.state_dict())

    class Larger(ToyImages):
        canvas_shape = (1, 32, 32)

        def __init__(self):
            super().__init__(images=4)
            self.canvas = self.canvas.repeat_interleave(4, 2).repeat_interleave(4, 3)

    seen = Outputs()
    options = {"loss": TokenizerLoss(perceptual=0.5, **given), "multipliers": (1, 1, 1, 1)}
    module = lit_vqvae(**options)
    trainer = quiet(tmp_path, max_steps=1, callbacks=[seen])
    trainer.fit(module, datamodule=Larger())
    assert seen.reports[0]["loss/perceptual"] > 0
    assert trainer.callback_metrics["val/lpips"] > 0
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not hold torchvision's weights of squeeze .*: missing features"):
        lit_vqvae(loss=TokenizerLoss(perceptual_net="squeeze", perceptual_weights=str(tmp_path / "other.pth")))
    with pytest.raises(FileNotFoundError, match=r"perceptual_weights nowhere.pth: no such file"):
        lit_vqvae(loss=TokenizerLoss(perceptual_weights="nowhere.pth"))


def test_a_run_that_was_stopped_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    whole, broken = resumed(
        tmp_path,
        lambda: lit_vqvae(discriminator=DISCRIMINATOR, scale_dropout=0.5, restart_every=3, vocab=256),
        callbacks=lambda: [EMAWeightAveraging(decay=0.9, use_buffers=False)],
    )
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state", "current_model_state")
    same(whole, broken, parts)
    assert whole["state_dict"]["network.quantizer.hit_updates"] == 3 + 3 * 19  # of the toy, and of 19 batches


def test_learns_on_bf16(tmp_path):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        seen, module = Outputs(), lit_vqvae(discriminator=DISCRIMINATOR)
        quiet(tmp_path, max_steps=4, precision=precision, callbacks=[seen]).fit(module, datamodule=ToyImages())
        losses.append(seen.losses)
        assert module.network.quantizer.codebook.weight.dtype == torch.float32
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


@pytest.mark.slow
@pytest.mark.xfail(
    torch.__version__ < "2.15",
    reason="inductor cannot order strides that are products of unknown sizes (torch's issues 172204 and 185510)",
    raises=torch._dynamo.exc.BackendCompilerFailed,
    strict=True,
)
def test_compiled_blocks_change_neither_loss_nor_names(tmp_path):
    losses = []
    for compile_blocks in (False, True):
        options = {
            "discriminator": DISCRIMINATOR,
            "optimization": Optimization(lr=1e-4),
        }  # Adam's first steps magnify rounding
        module, seen = lit_vqvae(compile_blocks=compile_blocks, **options), Outputs()
        quiet(tmp_path, max_steps=3, callbacks=[seen]).fit(module, datamodule=ToyImages())
        losses.append(seen.losses)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert module.state_dict().keys() == lit_vqvae(discriminator=DISCRIMINATOR).state_dict().keys()


def test_predicts_tokens(tmp_path):
    module, data = lit_vqvae().eval(), ToyImages(images=4)
    out = module.predict_step({"canvas": data.canvas, "label": data.label, "number": 7}, 0)
    assert torch.equal(out["tokens"], torch.cat(module.network.encode(data.canvas / 127.5 - 1), 1))
    assert out.keys() == {"tokens", "label", "number"}


@pytest.mark.parametrize(
    ("attribute", "value"), [("canvas_shape", (1, 16, 16)), ("canvas_shape", (3, 8, 8)), ("alphabet", 2)]
)
def test_data_that_does_not_fit_is_refused(tmp_path, attribute, value):
    data = ToyImages()
    setattr(data, attribute, value)
    with pytest.raises(
        ValueError, match=r"the tokenizer takes \[1, 8, 8\] with 256: make the data's size and channels"
    ):
        quiet(tmp_path, max_steps=1).fit(lit_vqvae(), datamodule=data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenizerLoss(l1=-1), r"loss.l1 must not be negative"),
        (lambda: TokenizerLoss(perceptual=1), r"loss.perceptual_weights is not given: download torchvision's weights"),
        (lambda: DiscriminatorConfig(weight=-1), r"discriminator.weight must not be negative"),
        (lambda: LitVQVAE(vqvae(), restart_every=-1), r"restart_every must not be negative"),
        (lambda: LitVQVAE(vqvae(), usage_alarm=101), r"usage_alarm must be in 0\.\.100, in percent, got 101"),
        (lambda: LitVQVAE(vqvae(simvq=True)), r"restart_every is 100, but simvq .*: set restart_every to 0"),
        (lambda: LitVQVAE(vqvae(), codec="rgb"), r"codec rgb has 3 planes, but the tokenizer's in_channels is 1"),
        (
            lambda: lit_vqvae(in_channels=2, codec="onset_hold", loss=TokenizerLoss(perceptual_weights="any")),
            r"LPIPS compares images of 1 or 3 channels, not 2",
        ),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nan_loss_stops_before_the_step(tmp_path):
    module = lit_vqvae()
    with torch.no_grad():
        module.network.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 0: lower the learning rate"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=ToyImages())


def test_gradient_norms_have_names():
    module = lit_vqvae(discriminator=DISCRIMINATOR)
    levels = module.parameters_by_level()
    assert levels.keys() == {"encoder", "quantizer", "decoder", "discriminator"}
    assert sum(map(len, levels.values())) == len(list(module.parameters()))
