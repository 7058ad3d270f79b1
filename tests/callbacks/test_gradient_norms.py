"""Norms of the gradients, against values worked out by hand."""

from types import SimpleNamespace

import pytest
import torch
from callback_toys import TwoLevels, fractal, pairs, trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import GradientNorms

# The gradient of the first level is x = (3, 4), of norm 5; of the leaf, 3 x, of norm 15.
EXPECTED = {"grad_norm/level_0": 5.0, "grad_norm/leaf": 15.0, "grad_norm/total": 250**0.5}


def norms(run) -> dict[str, float]:
    return {key: value.item() for key, value in run.callback_metrics.items() if key.startswith("grad_norm/")}


def test_values(tmp_path):
    run = trainer(tmp_path, callbacks=[GradientNorms()])
    run.fit(TwoLevels(), pairs((3, 4)))
    assert norms(run) == pytest.approx(EXPECTED)


def test_before_clipping(tmp_path):
    class Keeps(TwoLevels):
        def on_before_zero_grad(self, optimizer):
            if self.first.weight.grad is not None:
                self.clipped = torch.cat([p.grad.flatten() for p in self.parameters()]).norm()

    module = Keeps()
    run = trainer(tmp_path, callbacks=[GradientNorms()], gradient_clip_val=1.0, max_epochs=2)
    run.fit(module, pairs((3, 4)))
    assert module.clipped == pytest.approx(1, abs=1e-4)
    assert norms(run) == pytest.approx(EXPECTED)


def test_of_the_accumulated_gradient(tmp_path):
    run = trainer(tmp_path, callbacks=[GradientNorms()], accumulate_grad_batches=2)
    run.fit(TwoLevels(), pairs((6, 0), (0, 8)))
    assert norms(run) == pytest.approx(EXPECTED)


@pytest.mark.parametrize("fused", [False, True])
def test_without_the_scale_of_16_bit(tmp_path, fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run = trainer(tmp_path, callbacks=[GradientNorms()], plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    run.fit(TwoLevels(torch.optim.AdamW, fused=fused), pairs((3, 4)))
    assert norms(run) == pytest.approx(EXPECTED)


def test_only_on_logging_steps(tmp_path):
    run = trainer(tmp_path, callbacks=[GradientNorms()], log_every_n_steps=3)
    run.fit(TwoLevels(), pairs((3, 4), (3, 4)))
    assert not norms(run)


def test_levels_of_a_fractal_make_up_the_total(tmp_path):
    module = fractal()
    run = trainer(tmp_path)
    run.strategy.connect(module)
    canvas = torch.randint(0, 5, (2, 1, 12, 16), dtype=torch.uint8)
    module.network(canvas).loss.backward()
    logged = {}
    module.log_dict = lambda values, batch_size: logged.update(values)
    stand_in = SimpleNamespace(fast_dev_run=True, precision_plugin=run.precision_plugin)
    GradientNorms().on_before_optimizer_step(stand_in, module, torch.optim.SGD(module.parameters(), 0.1))
    parts = [logged[f"grad_norm/{name}"] for name in ("level_0", "level_1", "leaf")]
    assert min(parts) > 0
    assert torch.stack(parts).norm() == pytest.approx(logged["grad_norm/total"].item(), rel=1e-5)


def test_sharded_gradients_are_refused():
    with pytest.raises(MisconfigurationException, match="FSDPStrategy"):
        GradientNorms().setup(SimpleNamespace(strategy=FSDPStrategy.__new__(FSDPStrategy)), TwoLevels(), "fit")
