"""The classifier of digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from litscale.metrics import DigitFeatures
from litscale.metrics.features import extract, identity


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    made = DigitFeatures(cache_dir=str(tmp_path_factory.mktemp("cache")))
    made.prepare()
    return made


def scans():
    return torch.from_numpy(np.rint(load_digits().images * 255 / 16).astype(np.uint8))[:, None]


def test_it_recognises_held_out_scans(network):
    assert network.held_out_accuracy > 0.97
    features, logits = extract(network, scans())
    assert features.square().mean() == pytest.approx(1, rel=0.05)
    held_out = torch.arange(1797) % 5 == 4
    right = logits.argmax(dim=1).numpy() == load_digits().target
    assert right[held_out.numpy()].mean() == pytest.approx(network.held_out_accuracy.item())
    assert 1 > right[~held_out.numpy()].mean() > network.held_out_accuracy - 0.01


@pytest.mark.slow
def test_it_is_always_the_same_and_leaves_generator_and_threads_alone(network, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    with torch.inference_mode():
        again = DigitFeatures(cache_dir=str(tmp_path))
        assert identity(again) == identity(network)
    assert torch.get_num_threads() == 2
    assert torch.rand(1) == expected
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_canvases_become_grey_shares_of_full_brightness(network):
    canvas = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    canvas[0, 0, 0, 0], canvas[0, :, 7, 14:] = 255, 51
    grey = network._grey(canvas)
    assert grey.shape == (1, 1, 8, 8)
    assert grey[0, 0, 0, 0].item() == pytest.approx(1 / 2 / 3)  # half of the cell, one of three channels
    assert grey[0, 0, 7, 7].item() == pytest.approx(0.2)
    assert grey.sum().item() == pytest.approx(1 / 6 + 0.2)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_larger_and_coloured_canvases(network, size, channels):
    small = scans()[:20]
    large = small.repeat_interleave(size // 8, dim=2).repeat_interleave(size // 8, dim=3).repeat(1, channels, 1, 1)
    features, logits = extract(network, large)
    expected = extract(network, small)
    assert features.shape == (20, network.num_features)
    assert torch.allclose(features, expected[0], atol=1e-5)
    assert torch.allclose(logits, expected[1], atol=1e-4)


def test_another_size(network):
    with pytest.raises(ValueError, match="multiples of 8, not 12 x 8"):
        network(torch.zeros(1, 1, 12, 8, dtype=torch.uint8))
