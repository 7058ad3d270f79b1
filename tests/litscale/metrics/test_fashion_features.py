"""The classifier of Fashion-MNIST: trained once, kept in the cache, and what it measures, worked out by numpy."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import write_idx
from numpy.lib.stride_tricks import sliding_window_view

from litscale.metrics import FashionFeatures, FeatureStatistics, FrechetDistance
from litscale.metrics.features import extract, identity
from litscale.storage.idx_images import IdxImages, to_canvases


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes that are easy to tell apart, and a cache beside them."""
    return write_idx(tmp_path_factory.mktemp("pictures"), {"train": 1200, "t10k": 60}, classes=3)


@pytest.fixture(scope="module")
def network(folder):
    made = FashionFeatures(str(folder), size=16, num_classes=3, cache_dir=str(folder / "cache"))
    made.prepare()
    return made


def pictures(folder, split, size=16):
    return torch.from_numpy(to_canvases(IdxImages(folder).read(split)[0], size))[:, None]


def test_it_recognises_pictures_that_it_was_not_trained_on(network, folder):
    assert network.held_out_accuracy > 0.9
    features, logits = extract(network, pictures(folder, "test"))
    labels = torch.from_numpy(IdxImages(folder).read("test")[1])
    assert (logits.argmax(1) == labels).float().mean() == pytest.approx(network.held_out_accuracy.item())
    assert (features.shape, logits.shape) == ((60, network.num_features), (60, 3))
    assert extract(network, pictures(folder, "train"))[0].square().mean() == pytest.approx(1, rel=1e-4)


def test_it_is_trained_once_and_always_alike(network, folder, tmp_path, monkeypatch):
    options = {"folder": str(folder), "size": 16, "num_classes": 3}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    with torch.inference_mode():
        again = FashionFeatures(**options, cache_dir=str(tmp_path))
        assert identity(again) == identity(network)  # whoever asks for weights has them trained
    assert torch.get_num_threads() == 2
    assert torch.rand(1) == expected
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    (kept,) = (tmp_path / "classifiers").iterdir()
    monkeypatch.setattr(FashionFeatures, "_trained", None)
    canvas = pictures(folder, "test")[:3]
    torch.testing.assert_close(FashionFeatures(**options, cache_dir=str(tmp_path))(canvas), network(canvas))
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:-200])
    assert identity(FashionFeatures(**options, cache_dir=str(tmp_path))) == identity(network)


def test_other_pictures_have_other_weights(network, tmp_path):
    other = write_idx(tmp_path, {"train": 240, "t10k": 6}, classes=3)
    made = FashionFeatures(str(other), size=16, num_classes=3, cache_dir=str(tmp_path))
    assert identity(made) != identity(network)


def test_larger_and_coloured_canvases(network, folder):
    small = pictures(folder, "test")[:5]
    large = small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).repeat(1, 3, 1, 1)
    torch.testing.assert_close(network(large), network(small), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="FashionFeatures takes sides that are multiples of 16, not 28 x 28"):
        network(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


def test_nothing_is_read_before_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.delenv("FASHION_MNIST", raising=False)
    made = FashionFeatures(str(tmp_path / "none"))
    assert (made.num_features, made.num_classes) == (64, 10)
    with pytest.raises(FileNotFoundError, match=r"folder: there is no folder .*none; get the data with torchvision"):
        made(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))


def test_impossible_options(folder):
    with pytest.raises(ValueError, match=r"FashionFeatures\.size must be one of 16, 32, not 28"):
        FashionFeatures(size=28)
    with pytest.raises(ValueError, match=r"FashionFeatures\.num_classes must be at least 1, not 0"):
        FashionFeatures(num_classes=0)
    with pytest.raises(ValueError, match=r"num_classes is 2, but .* has labels up to 2: set it to 3"):
        FashionFeatures(str(folder), num_classes=2).prepare()


def by_numpy(weights: dict[str, np.ndarray], canvases: np.ndarray) -> np.ndarray:
    """The features of canvases, float64 ``[n, 64]``: three times convolution, maximum of 2 x 2 and ReLU, a layer."""
    x = canvases / 255
    for number in (0, 3, 6):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = sliding_window_view(padded, (3, 3), axis=(2, 3))  # [n, C, H, W, 3, 3]
        x = np.einsum("nchwij,ocij->nohw", windows, weights[f"body.{number}.weight"], optimize=True)
        x = x + weights[f"body.{number}.bias"][:, None, None]
        n, c, h, w = x.shape
        x = np.maximum(x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)), 0)
    x = x.reshape(len(x), -1) @ weights["body.10.weight"].T + weights["body.10.bias"]
    return np.maximum(x, 0) / weights["scale"]


def test_fid_is_that_of_numpy(network, folder):
    real, made = pictures(folder, "train")[:300], pictures(folder, "val")[:90].flip(2)
    reference, distance = FeatureStatistics(64), FrechetDistance(64)
    for batch in real.split(70):
        reference.update(extract(network, batch)[0])
    for batch in made.split(40):
        distance.update(extract(network, batch)[0])
    distance.reference = reference.compute()
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    first, second = (by_numpy(weights, canvases.double().numpy()) for canvases in (real, made))
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    apart = np.square(first.mean(0) - second.mean(0)).sum()
    # The trace of the square root of a matrix is the sum of the square roots of its eigenvalues.
    shared = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    expected = apart + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared
    assert expected > 0.1
    assert distance.compute().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif("FASHION_MNIST" not in os.environ, reason="needs the real pictures")
@pytest.mark.parametrize("size", [16, 32])
def test_nine_of_ten_real_pictures_are_recognised(size, tmp_path):
    made = FashionFeatures(size=size, cache_dir=os.environ.get("LITSCALE_CACHE", str(Path(tmp_path))))
    made.prepare()
    assert made.held_out_accuracy >= 0.9
