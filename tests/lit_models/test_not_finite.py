"""A batch whose score is no number shows in the score of all batches, rather than being left out of it."""

import torch
from sdvar_lit_toys import lit_sdvar
from torchmetrics import MeanMetric
from var_toys import lit_var


def test_no_mean_leaves_out_what_is_no_number(toy_module):
    for module in (toy_module(nll_passes=2), lit_var(), lit_sdvar()):
        means = [part for part in module.modules() if isinstance(part, MeanMetric)]
        assert means
        for mean in means:
            mean.update(torch.tensor([1.0, float("nan")]))
            mean.update(torch.tensor(3.0))
            assert mean.compute().isnan()
