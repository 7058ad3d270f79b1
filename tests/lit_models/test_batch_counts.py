"""What each module says that a batch holds, and what `Throughput` makes of it."""

import pytest
import torch
from sdvar_lit_toys import lit_sdvar
from var_toys import ToyImages, lit_var, lit_vqvae, quiet

from callbacks import Throughput
from lit_models import Optimization

OPTIMIZATION = Optimization(lr=1e-2)


@pytest.mark.parametrize(
    ("build", "tokens"),
    [
        (lambda toy: toy(("ar", "mar"), optimization=OPTIMIZATION, codec="gray", num_classes=3), None),
        (lambda toy: lit_var(optimization=OPTIMIZATION), 1 + 4 + 16),
        (lambda toy: lit_vqvae(optimization=OPTIMIZATION), 1 + 4 + 16),
        (lambda toy: lit_sdvar(optimization=OPTIMIZATION), 1 + 4 + 16),
    ],
    ids=["fractal", "var", "vqvae", "sdvar"],
)
def test_every_module_counts(tmp_path, toy_module, build, tokens):
    callback = Throughput()
    run = quiet(tmp_path, max_steps=3, callbacks=[callback], log_every_n_steps=1, limit_val_batches=0)
    run.fit(build(toy_module), datamodule=ToyImages())
    found = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("throughput/")}
    samples = found["throughput/samples_per_second"]
    assert samples == pytest.approx(4 * found["throughput/steps_per_second"], rel=1e-3)
    assert found["throughput/cells_per_second"] == pytest.approx(64 * samples, rel=1e-3)
    assert found.get("throughput/tokens_per_second") == (
        None if tokens is None else pytest.approx(tokens * samples, rel=1e-3)
    )
    assert callback._flops_per_sample > 10_000
    assert 0 < found["throughput/data_loading_share"] < 1


def test_batches_of_tokens_and_of_other_kinds(toy_module):
    tokens = {"tokens": torch.zeros(5, 21, dtype=torch.long)}
    assert lit_var().batch_counts(tokens) == {"samples": 5, "tokens": 105}
    assert toy_module().batch_counts(tokens) == toy_module().batch_counts(torch.zeros(3)) == {}
