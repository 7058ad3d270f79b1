"""Extractors: what they give, and what is said if they cannot."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from litscale.metrics import InceptionFeatures, MusicFeatures, features
from litscale.metrics.features import WEIGHTS, checked_size, default_weights, extract, identity
from litscale.music import Roll, RollFormat, statistics
from litscale.music.statistics import NAMES
from litscale.storage.checkpoints import read_checkpoint

FORM = RollFormat("onset_hold", velocity_bins=3, lowest_pitch=60, pitches=12)


def roll(*pitches):
    symbols = np.zeros((12, 48), dtype=np.uint8)
    for start, pitch in enumerate(pitches):
        symbols[pitch, 15 * start] = 2
    return symbols


def test_inception_is_torch_fidelitys_of_rgb_and_grey(weights):
    network = InceptionFeatures(str(weights)).train()
    grey = torch.randint(0, 256, (2, 1, 20, 30), dtype=torch.uint8)
    seen, logits = extract(network, grey)
    official = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(weights))
    expected = official(grey.repeat(1, 3, 1, 1))
    assert seen.shape == (2, network.num_features)
    assert torch.equal(seen, expected[0])
    assert torch.equal(logits, expected[1])


def test_weights_of_inception_that_are_missing_or_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / WEIGHTS
    assert default_weights() == path
    with pytest.raises(FileNotFoundError, match=f"no weights of Inception at {path}.*github.com.*InceptionFeatures.w"):
        InceptionFeatures()
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="does not hold the weights of torch-fidelity's Inception"):
        InceptionFeatures(str(other))
    torch.save({"weight": print}, other)
    with pytest.raises(ValueError, match=r"InceptionFeatures\.weights .*other\.pth holds more than weights"):
        InceptionFeatures(str(other))
    for content in (b"no weights", b"\xff\xfetext", other.read_bytes()[:300]):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"InceptionFeatures\.weights .*other\.pth is damaged or truncated"):
            InceptionFeatures(str(other))
    torch.save([1, 2], other)
    with pytest.raises(ValueError, match="does not hold the weights"):
        InceptionFeatures(str(other))


def test_the_weights_file_is_read_once(weights, tmp_path, monkeypatch):
    """What was checked is what is used, whatever the file has become since."""
    path = tmp_path / "weights.pth"
    path.write_bytes(weights.read_bytes())

    def read_and_remove(path, option):
        found = read_checkpoint(path, option)
        path.unlink()
        return found

    monkeypatch.setattr(features, "read_checkpoint", read_and_remove)
    found = InceptionFeatures(str(path)).network.state_dict()
    assert torch.equal(found["fc.weight"], torch.load(weights)["fc.weight"])


def test_music_features_are_scaled_statistics_and_zero_where_undefined():
    rolls = np.stack([roll(0, 4, 7), roll()])
    network = MusicFeatures(FORM)
    features, logits = extract(network, torch.from_numpy(rolls)[:, None])
    assert logits is None
    found = dict(zip(NAMES, (features[0] * network.scales).tolist(), strict=True))
    assert found == pytest.approx(statistics(Roll(rolls[0], FORM)))
    assert features[1].tolist() == [0] * network.num_features
    assert extract(network, torch.zeros(0, 1, 12, 48, dtype=torch.uint8))[0].shape == (0, network.num_features)


def test_music_features_follow_the_meter():
    symbols = torch.zeros(1, 1, 12, 48, dtype=torch.uint8)
    symbols[0, 0, 5, [0, 8, 12, 20, 24, 32, 36, 44]] = 1
    place = NAMES.index("groove_consistency")
    for network in (MusicFeatures(FORM.with_meter(3)), MusicFeatures(FORM, beats_per_bar=3)):
        assert (network(symbols) * network.scales)[0, place] == 1
    four = MusicFeatures(FORM)
    assert (four(symbols) * four.scales)[0, place] == pytest.approx(1 - 6 / 32)


def test_identity_is_of_weights_and_options():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    assert identity(first) != identity(second)
    second.load_state_dict(first.state_dict())
    assert identity(first) == identity(second)
    assert identity(MusicFeatures(FORM)) == identity(MusicFeatures(FORM))
    assert identity(MusicFeatures(FORM)) != identity(MusicFeatures(FORM, beats_per_bar=3))


def test_extractors_that_are_none():
    with pytest.raises(ValueError, match="Flatten has no int attribute num_features"):
        checked_size(nn.Flatten())
    network = nn.Flatten()
    network.num_features = 5
    with pytest.raises(ValueError, match=r"Flatten gave features of shape \[2, 12\], not \[2, 5\]"):
        extract(network, torch.zeros(2, 3, 2, 2, dtype=torch.uint8))
