"""Parameter groups, learning rate and schedule, and the fused update."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from var_toys import ToyImages, lit_var, quiet

from lit_models import Optimization
from lit_models.optimization import parameter_groups
from litscale.models.fractal import Fractal


def trainer(steps=100, per_epoch=10, accumulate=1, batch=32, ranks=4):
    return SimpleNamespace(
        estimated_stepping_batches=steps,
        num_training_batches=per_epoch,
        accumulate_grad_batches=accumulate,
        world_size=ranks,
        datamodule=SimpleNamespace(batch_size=batch),
        gradient_clip_val=None,
    )


def test_only_matrices_decay():
    network = Fractal([(4, 4), (1, 1)], ["mar"], [16, 16], [1, 1], [2, 2], num_classes=3)
    decayed, plain = parameter_groups(network, 0.05)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(p)].rsplit(".", 1)[-1] for p in decayed["params"]} == {"weight"}
    assert all(p.ndim == 2 for p in decayed["params"])
    listed = {names[id(p)] for p in plain["params"]}
    assert {"no_class", "class_emb.weight", "leaf.codebook", "levels.0.generator.mask_token"} <= listed
    assert all(
        "norm" in name or name.endswith("bias")
        for name in listed
        if name.endswith(("weight", "bias")) and "emb.weight" not in name
    )
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)


def test_learning_rate_scales_with_the_canvases_of_a_step():
    assert Optimization(base_lr=1e-4).learning_rate(trainer(accumulate=2)) == pytest.approx(1e-4 * 32 * 4 * 2 / 256)
    assert Optimization(lr=3e-4).learning_rate(trainer()) == 3e-4
    with pytest.raises(ValueError, match=r"optimization.lr: give it, or a data module with a batch_size"):
        Optimization().learning_rate(SimpleNamespace(datamodule=None))


def test_warm_up_then_cosine():
    at = Optimization(warmup_steps=10, min_lr_ratio=0.1).factor(trainer())
    assert [at(0), at(4), at(9)] == pytest.approx([0.1, 0.5, 1.0])
    assert at(55) == pytest.approx(0.55)
    assert at(100) == pytest.approx(0.1)
    assert at(200) == pytest.approx(0.1)
    linear = Optimization(schedule="linear", min_lr_ratio=0.1).factor(trainer())
    assert [linear(0), linear(5), linear(100)] == pytest.approx([1.0, 1.0, 0.1])
    assert linear(62) == pytest.approx(0.1 + 0.9 * 0.4)  # 38 of the 95 steps of the decay are left
    constant = Optimization(schedule="constant", warmup_epochs=2).factor(trainer(accumulate=2))
    assert [constant(0), constant(4), constant(9), constant(99)] == pytest.approx([0.1, 0.5, 1.0, 1.0])


def test_the_length_of_the_run_is_not_asked_for_before_it_starts():
    class Unready(SimpleNamespace):
        @property
        def estimated_stepping_batches(self):
            raise AssertionError("asked too early")

    module = SimpleNamespace(trainer=Unready(world_size=1, accumulate_grad_batches=1, gradient_clip_val=None))
    configured = Optimization(lr=1.0, warmup_steps=4).configure(module, nn.Linear(2, 2))
    assert configured["optimizer"].param_groups[0]["lr"] == 0.25
    assert isinstance(configured["optimizer"], torch.optim.AdamW)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"schedule": "step"}, "optimization.schedule must be"), ({"lr": -1.0}, "optimization.lr must not be negative")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Optimization(**options)


def test_weight_decay_grows_on_half_a_cosine():
    optimization = Optimization(weight_decay=0.05, weight_decay_end=0.08)
    groups = parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), optimization.weight_decay)
    run = trainer(steps=100)
    run.optimizers = [torch.optim.AdamW(groups)]
    for step, wanted in ((0, 0.05), (25, 0.065 - 0.015 * 0.5**0.5), (50, 0.065), (100, 0.08)):
        run.global_step = step
        optimization.set_weight_decay(run)
        assert [group["weight_decay"] for group in run.optimizers[0].param_groups] == pytest.approx([wanted, 0.0])
    Optimization(weight_decay=0.3).set_weight_decay(run)  # constant: left as it is
    assert run.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(0.08)


def test_weights_of_every_kind_of_convolution_decay():
    layers = [
        nn.Linear(2, 3),
        nn.Conv1d(1, 2, 3),
        nn.Conv2d(1, 2, 3),
        nn.ConvTranspose2d(1, 2, 3),
        nn.Embedding(4, 2),
        nn.BatchNorm2d(2),
        nn.LayerNorm(3),
        nn.GroupNorm(1, 2),
    ]
    decayed, plain = parameter_groups(nn.ModuleList(layers), 0.3)
    assert [id(p) for p in decayed["params"]] == [id(layer.weight) for layer in layers[:4]]
    rest = {id(layer.bias) for layer in layers if hasattr(layer, "bias")} | {id(layer.weight) for layer in layers[4:]}
    assert {id(p) for p in plain["params"]} == rest
    assert (decayed["decays"], plain["decays"]) == (True, False)


def test_frozen_weights_are_in_no_group():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    layers[0].requires_grad_(False)
    decayed, plain = parameter_groups(layers, 0.3)
    assert (decayed["params"], plain["params"]) == ([layers[1].weight], [])


def test_a_schedule_by_hand_at_its_edges():
    """6 steps of warm-up, of which 4 are one epoch of 8 batches, two of which make a step; 30 steps in all."""
    run = trainer(steps=30, per_epoch=8, accumulate=2)
    cosine = Optimization(warmup_steps=2, warmup_epochs=1.0, min_lr_ratio=0.2).factor(run)
    assert [cosine(step) for step in (0, 1, 5)] == pytest.approx([1 / 6, 2 / 6, 1.0])
    quarter = 0.2 + 0.8 * 0.5 * (1 + 0.5**0.5)
    assert [cosine(step) for step in (6, 12, 18, 30, 31)] == pytest.approx([1.0, quarter, 0.6, 0.2, 0.2])
    linear = Optimization(schedule="linear", warmup_steps=2, warmup_epochs=1.0, min_lr_ratio=0.2).factor(run)
    # of the 24 steps after the warm-up a twentieth holds
    assert [linear(step) for step in (6, 7, 18, 30)] == pytest.approx([1.0, 1.0, 0.2 + 0.8 * 0.5 / 0.95, 0.2])
    short = Optimization(warmup_steps=40).factor(run)
    assert [short(step) for step in (9, 29)] == pytest.approx([0.25, 0.75])
    assert Optimization(warmup_steps=30).factor(run)(30) == 1.0


def test_what_a_restored_optimiser_is_given():
    """After 5 of 20 steps another peak, warm-up and weight decay are asked for."""
    run = trainer(steps=20)
    optimizer = torch.optim.AdamW(parameter_groups(nn.Linear(2, 2), 0.5), 1.0)
    before = Optimization(lr=1.0, weight_decay=0.5, schedule="constant")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, before.factor(run))
    scheduler.last_epoch = 5
    after = Optimization(lr=0.3, weight_decay=0.1, warmup_steps=12)
    scheduler.lr_lambdas = [after.factor(run)] * 2
    run.lr_scheduler_configs = [SimpleNamespace(scheduler=scheduler)]
    after.reapply(run)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.15, 0.15])
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.3, 0.3]
    assert scheduler.base_lrs == [0.3, 0.3]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def trained(folder, steps=6, ckpt_path=None, fused=None, plugins=(), **options):
    """A trainer after some steps of a small VAR; it has saved ``<fused>.ckpt``."""
    module = lit_var(optimization=Optimization(lr=1e-2, schedule="constant", fused=fused))
    run = quiet(folder, max_steps=steps, limit_val_batches=0, plugins=list(plugins), **options)
    run.fit(module, datamodule=ToyImages(images=4), ckpt_path=ckpt_path, weights_only=True)
    run.save_checkpoint(folder / f"{fused}.ckpt")
    return run


def scaling():
    """16-mixed precision on a CPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))


def assert_close(run, other):
    """Assert that weights are equal up to rounding, of which six steps of AdamW at a rate of 1e-2 make 2e-5."""
    for (name, one), two in zip(
        run.lightning_module.named_parameters(), other.lightning_module.parameters(), strict=True
    ):
        torch.testing.assert_close(one, two, msg=name, atol=1e-4, rtol=0)


def assert_close_in_halves(run, other):
    """Assert that weights are equal but for halves that round to the other side.

    AdamW makes a whole step of the smallest gradient, so that single weights may differ more.
    """
    ours, theirs = (nn.utils.parameters_to_vector(each.lightning_module.parameters()).detach() for each in (run, other))
    assert (ours - theirs).abs().mean() < 1e-4  # of six steps of 1e-2


def test_the_same_gradients_give_the_same_weights_up_to_rounding():
    weights = []
    for fused in (True, False):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(7, 5), nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last))
        optimizer = torch.optim.AdamW(parameter_groups(network, 0.3), 1e-2, (0.9, 0.95), fused=fused)
        for _ in range(5):
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        weights.append(list(network.parameters()))
    for one, two in zip(*weights, strict=True):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("clip", "precision"), [(None, "32-true"), (0.05, "32-true"), (0.05, "bf16-mixed")])
def test_the_fused_update_is_the_plain_one_up_to_rounding(tmp_path, clip, precision):
    fused, plain = (
        trained(tmp_path, fused=fused, gradient_clip_val=clip, precision=precision) for fused in (None, False)
    )
    assert [run.optimizers[0].defaults["fused"] for run in (fused, plain)] == [True, False]
    (assert_close if precision == "32-true" else assert_close_in_halves)(fused, plain)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_the_other_update(tmp_path, first):
    """The learning rate is constant, so that two halves and a whole have one schedule."""
    whole = trained(tmp_path / "whole", fused=first)
    trained(tmp_path, steps=3, fused=first)
    resumed = trained(tmp_path, fused=not first, ckpt_path=tmp_path / f"{first}.ckpt")
    (optimizer,) = resumed.optimizers
    assert {group["fused"] for group in optimizer.param_groups} == {not first}
    assert resumed.global_step == 6
    assert {int(state["step"]) for state in optimizer.state.values()} == {6}
    assert_close(resumed, whole)


def test_with_the_scale_of_16_bit_the_update_is_fused_unless_gradients_are_clipped(tmp_path):
    alone, clipped = (trained(tmp_path, plugins=[scaling()], gradient_clip_val=clip) for clip in (None, 0.05))
    assert [run.optimizers[0].defaults["fused"] for run in (alone, clipped)] == [True, False]
    for run, clip in ((alone, None), (clipped, 0.05)):
        other = trained(tmp_path, plugins=[scaling()], fused=False, gradient_clip_val=clip)
        assert_close_in_halves(run, other)
    with pytest.raises(ValueError, match=r"optimization.fused: true undoes .* too late for trainer.gradient_clip_val"):
        trained(tmp_path, plugins=[scaling()], fused=True, gradient_clip_val=0.05)


def test_a_loss_that_is_not_finite_stops_a_run_with_the_scale_of_16_bit(tmp_path):
    module = lit_var()
    with torch.no_grad():
        module.network.head.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        quiet(tmp_path, max_steps=2, plugins=[scaling()]).fit(module, datamodule=ToyImages())
