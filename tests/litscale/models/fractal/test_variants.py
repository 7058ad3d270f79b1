"""Variants of a network: other generators and another width, the rest alike."""

import pytest
import torch

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.variants import kinds, variant

OPTIONS = {"codec": "onset_hold", "velocity_bins": 1, "positions": ["both", "learned"], "guiding": True}
OPTIONS |= {"scan": ["column_major", "row_major"], "num_classes": 3, "attn_dropout": 0.1, "root_conditions": 2}


def build(generators, width, **options):
    sizes = [(8, width), (8, 2), (1, 1)]
    return Fractal(sizes, generators, [32, 16, 16], [2, 1, 1], [4, 2, 2], **OPTIONS | options)


def shapes(network):
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("generators", [["ar", "ar"], ["mar", "mar"], ["mar", "ar"]])
def test_a_variant_is_the_network_that_its_options_would_make(generators):
    network = build(["ar", "mar"], 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    other, wanted = variant(network, generators, 12), build(generators, 12)
    assert kinds(other) == generators
    assert other.sizes == wanted.sizes
    assert network.sizes[0] == (8, 8)
    assert shapes(other) == shapes(wanted)
    assert str(other) == str(wanted)
    # it works like one with the same weights
    wanted.load_state_dict(other.state_dict())
    draw = [generate(model, torch.tensor([1]), Generation(cfg=2.0), seed=3) for model in (other, wanted)]
    assert torch.equal(*draw)
    assert draw[0].shape == (1, 1, 8, 12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_depend_on_no_seed_and_change_none():
    network = build(["ar", "mar"], 8)
    state = torch.get_rng_state()
    one = variant(network, ["ar", "ar"], 8).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    same = variant(network, ["ar", "ar"], 8).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)


@pytest.mark.parametrize("generators", [["ar", "mar"], ["mar", "ar"]])
def test_only_a_network_that_can_be_built_is_shown_columns_before_a_patch(generators):
    network = build(["ar", "ar"], 8, preceding_columns=2, preceding_margin=1, periods=[4])
    shown = {"preceding_columns": 2, "preceding_margin": 1} if generators[0] == "ar" else {}
    other, wanted = variant(network, generators, 12), build(generators, 12, periods=[4], **shown)
    assert shapes(other) == shapes(wanted)
    assert other.preceding == wanted.preceding
