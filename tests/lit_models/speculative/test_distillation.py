"""The divergence of a draft from its target."""

import torch
from sdvar_lit_toys import lit_sdvar, network, speculative
from var_toys import ToyImages

from lit_models.speculative.distillation import divergence, teacher_forced
from litscale.models.var import VARGeneration


def test_equal_networks_do_not_diverge():
    module = lit_sdvar(draft=network("target"), **speculative())
    module.draft.load_state_dict(module.target.state_dict())
    tokens = module.vqvae.encode(ToyImages(2).canvas / 127.5 - 1)
    logits = [
        teacher_forced(model, torch.tensor([0, 1]), tokens, VARGeneration(1.0))
        for model in (module.target, module.draft)
    ]
    nats, overlap = divergence(*logits)
    assert nats.abs().max() < 1e-5
    assert (overlap - 1).abs().max() < 1e-5
