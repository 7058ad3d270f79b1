"""A training step reads one value of the device on the host: whether its losses and its gradients are finite."""

from functools import partial

import pytest
import torch
from dispatch import Counts, count_operators
from lightning.pytorch import Callback
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from sdvar_lit_toys import lit_sdvar
from var_toys import ToyImages, lit_var, lit_vqvae, quiet

from callbacks import Throughput
from lit_models import DiscriminatorConfig, Optimization


class Steps(Callback):
    """Counts what is dispatched between the hooks that begin and end a batch: the step, optimiser included."""

    def __init__(self, monkeypatch):
        self.counts: list[Counts] = []
        original = _TrainingEpochLoop.advance

        def advance(loop, fetcher):
            self.counts.append(count_operators(partial(original, loop, fetcher)))

        monkeypatch.setattr(_TrainingEpochLoop, "advance", advance)


OPTIMIZATION = Optimization(lr=1e-2)
DISCRIMINATOR = DiscriminatorConfig(0.5, start_step=1, width=8, layers=1, consistency=0.5)


def fractal(generators, toy_module, **options):
    return toy_module(generators, optimization=OPTIMIZATION, codec="gray", num_classes=3, **options)


MODULES = {
    "ar": lambda build: fractal(("ar", "ar"), build),
    "mar": lambda build: fractal(("mar", "mar"), build),
    "var": lambda build: lit_var(optimization=OPTIMIZATION, progressive_steps=4),
    "vqvae": lambda build: lit_vqvae(
        optimization=OPTIMIZATION, discriminator=DISCRIMINATOR, scale_dropout=0.5, restart_every=2
    ),
    "sdvar": lambda build: lit_sdvar(optimization=OPTIMIZATION),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_training_step_reads_one_value(tmp_path, monkeypatch, toy_module, name):
    module, data, seen = MODULES[name](toy_module), ToyImages(), Steps(monkeypatch)
    options = {"gradient_clip_val": 0.5, "limit_val_batches": 0}
    quiet(tmp_path, max_steps=3, callbacks=[seen], **options).fit(module, datamodule=data)
    assert len(seen.counts) == 3
    for counts in seen.counts:
        assert counts.host_reads == 1, counts.reads


def test_throughput_reads_nothing_between_logging_steps(tmp_path, monkeypatch, toy_module):
    seen = Steps(monkeypatch)
    options = {"log_every_n_steps": 100, "limit_val_batches": 0, "callbacks": [seen, Throughput()]}
    quiet(tmp_path, max_steps=3, **options).fit(MODULES["mar"](toy_module), datamodule=ToyImages())
    assert [counts.host_reads for counts in seen.counts] == [1, 1, 1]


def test_a_step_of_several_batches_reads_one_value(tmp_path, monkeypatch, toy_module):
    seen = Steps(monkeypatch)
    options = {"accumulate_grad_batches": 2, "limit_val_batches": 0}
    trainer = quiet(tmp_path, max_steps=2, callbacks=[seen], **options)
    trainer.fit(MODULES["mar"](toy_module), datamodule=ToyImages())
    assert [counts.host_reads for counts in seen.counts] == [0, 1, 0, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_each_loss_of_a_step_of_several_batches_must_be_finite(tmp_path, toy_module, bad):
    module = MODULES["ar"](toy_module)
    forward, calls = module.network.forward, []

    def spoiled(*args):
        output = forward(*args)
        calls.append(output)
        if len(calls) == 3:  # the first of two batches of the second step
            output.loss = output.loss + torch.tensor(bad)
        return output

    module.network.forward = lambda canvas, label, with_entropy: spoiled(canvas, label, with_entropy)
    before = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            before.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    trainer = quiet(tmp_path, max_steps=4, callbacks=[Keep()], accumulate_grad_batches=2, limit_val_batches=0)
    with pytest.raises(FloatingPointError, match=rf"the loss is {bad} at step 1: lower the learning rate"):
        trainer.fit(module, datamodule=ToyImages())
    assert len(calls) == 4
    assert all(torch.equal(value, before[-1][name]) for name, value in module.state_dict().items())
