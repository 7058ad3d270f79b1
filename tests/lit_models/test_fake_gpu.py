"""Losses run on a GPU, as far as torch's `FakeTensorMode` can tell on any machine.

Fake tensors have a device and a shape, but no values: who leaves a tensor on the CPU or reads a value gets an error.
"""

from types import SimpleNamespace

import pytest
import torch
from fake_gpu import GPU, moved
from sdvar_lit_toys import lit_sdvar
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F  # noqa: N812
from var_toys import lit_var, lit_vqvae

from lit_models import DiscriminatorConfig, TokenizerLoss
from litscale.models.fractal.masking import Masking
from litscale.models.labels import check_labels
from litscale.models.var import VARGeneration

CLASSES = {"sizes": [(8, 8), (4, 4), (1, 1)], "codec": "rgb", "num_classes": 3}


class Trainer(SimpleNamespace):
    """What training steps ask of a trainer."""

    log_every_n_steps = 1  # the entropy is measured in steps that are logged
    strategy = SimpleNamespace(reduce=lambda value, reduce_op: value)


def step(module, monkeypatch, channels=1, side=8):
    """The output of a training step at step 2 on a fake batch of 4."""
    module._trainer = Trainer(global_step=2)
    module.log = lambda *given, **options: None
    with FakeTensorMode() as mode:
        canvas = torch.zeros(4, channels, side, side, dtype=torch.uint8, device=GPU)
        label = torch.zeros(4, dtype=torch.long, device=GPU)
        return moved(module, mode, monkeypatch).train().training_step({"canvas": canvas, "label": label}, 0)


MODULES = {
    "ar": lambda build: build(("ar", "ar"), num_classes=3, guiding=False, scan="column_major", positions="learned"),
    "mar": lambda build: build(("mar", "mar"), num_classes=3, guiding=False, attn_dropout=0.1, proj_dropout=0.1),
    "colours": lambda build: build(("mar", "ar"), root_conditions=2, **CLASSES),
    "weighed channels": lambda build: build(("ar", "mar"), channel_weights=[1.0, 2.0, 3.0], **CLASSES),
    "silenced prefix": lambda build: build(("ar", "ar"), num_classes=3, zero_prefix_rope=True, grad_checkpointing=True),
    "var": lambda build: lit_var(label_smoothing=0.1),
    "var by scales": lambda build: lit_var(attention="scales", shared_aln=True, dropout=0.1, grad_checkpointing=True),
    "distillation": lambda build: lit_sdvar(generation=VARGeneration(cfg=2.0, top_k=5, top_p=0.9)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_training_step(toy_module, monkeypatch, name):
    module = MODULES[name](toy_module)
    output = step(module, monkeypatch, channels=3 if name in ("colours", "weighed channels") else 1)
    assert {value.device for value in (output["loss"], *output["report"].values())} == {GPU}


def test_a_training_step_of_the_tokenizer_with_all_its_losses(tmp_path, monkeypatch):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1().state_dict(), tmp_path / "squeeze.pth")
    loss = TokenizerLoss(perceptual=0.5, perceptual_net="squeeze", perceptual_weights=str(tmp_path / "squeeze.pth"))
    discriminator = DiscriminatorConfig(0.5, start_step=1, width=8, layers=1, consistency=0.5)
    module = lit_vqvae(loss=loss, discriminator=discriminator, scale_dropout=0.5, multipliers=(1, 1, 1, 1))
    # The backward pass asks CUDA for its devices, of which there may be none.
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, weight, **options: (torch.zeros_like(weight),))
    output = step(module, monkeypatch, side=32)
    assert {"loss/perceptual", "loss/adversarial", "loss/discriminator"} < output["report"].keys()
    assert {value.device for value in (output["loss"], *output["report"].values())} == {GPU}
    # the restart of codes, which follows such a step
    module.all_gather = lambda vectors: vectors
    with next(module.parameters()).fake_mode:
        module._restart()
    assert module.network.quantizer.codebook.weight.device == GPU


def test_likelihoods_of_what_needs_no_count(toy_module, monkeypatch):
    module = toy_module(("ar", "ar"), num_classes=3)
    step(module, monkeypatch)
    mode = next(module.parameters()).fake_mode
    with mode:
        canvas = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device=GPU)
        label = torch.zeros(4, dtype=torch.long, device=GPU)
        assert module.network.nll_of_passes(canvas, label, 2, seed=1).device == GPU


def test_what_is_left_on_the_cpu_or_read_is_noticed():
    with FakeTensorMode():
        there, here = torch.zeros(2, 3, device=GPU), torch.zeros(2, dtype=torch.long)
        with pytest.raises(RuntimeError, match="device"):
            F.cross_entropy(there, here)
        with pytest.raises(DataDependentOutputException):
            bool(there.any())
        mask, weight, total = Masking("training")(5, 8, GPU)
        assert (mask.device, weight.device) == (GPU, GPU)
        assert 5 <= total <= 40
        with pytest.raises(DataDependentOutputException):
            Masking("likelihood")(5, 8, GPU)
        check_labels(torch.zeros(2, dtype=torch.long, device=GPU), 1)
