"""Symbols to planes and back, and to features and guiding values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litscale.models.codec import CODECS, Codec, SymbolFeatures


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bins", [1, 2, 8, 127])
def test_every_symbol_survives(name, bins):
    codec = Codec(name, bins)
    symbols = torch.arange(codec.alphabet, dtype=torch.uint8).view(1, 1, -1, 1).repeat(2, codec.channels, 1, 3)
    planes = codec.to_planes(symbols)
    assert planes.shape == (2, codec.planes, codec.alphabet, 3)
    assert planes.dtype == torch.float32
    assert planes.abs().max() <= 1
    assert torch.equal(codec.to_symbols(planes), symbols)


@given(st.sampled_from(CODECS), st.integers(1, 127), st.integers(0, 2**32), st.floats(0, 0.45))
@settings(max_examples=60, deadline=None)
def test_small_errors_change_no_symbol(name, bins, seed, share):
    codec = Codec(name, bins)
    generator = torch.Generator().manual_seed(seed)
    shape = (1, codec.channels, 4, 4)
    symbols = torch.randint(0, codec.alphabet, shape, dtype=torch.uint8, generator=generator)
    step = 2 / 255 if codec.is_image else 1 / (1 if name == "binary" else bins)
    noise = (2 * torch.rand(1, codec.planes, 4, 4, generator=generator) - 1) * share * step
    assert torch.equal(codec.to_symbols(codec.to_planes(symbols) + noise), symbols)


def test_what_rolls_mean():
    symbols = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).view(1, 1, 1, 4)
    planes = Codec("onset_hold", 2).to_planes(symbols)
    assert planes[0, :, 0].tolist() == [[-1, 0.5, 1, -1], [-1, -1, -1, 1]]
    unsure = torch.tensor([[0.9, -0.9, 0.2], [0.1, 0.1, -0.5]]).view(1, 2, 1, 3)
    assert Codec("onset_hold", 2).to_symbols(unsure).flatten().tolist() == [2, 3, 1]


def test_bad_options():
    with pytest.raises(ValueError, match=r"codec must be one of rgb, gray, .*, not 'midi'"):
        Codec("midi")
    with pytest.raises(ValueError, match=r"velocity_bins must be in 1..127, not 0"):
        Codec("velocity", 0)


@pytest.mark.parametrize("name", CODECS)
def test_codec_tells_all_symbols_apart(name):
    codec = Codec(name, 5)
    symbols = torch.arange(codec.alphabet).expand(1, codec.channels, 1, -1)
    read = SymbolFeatures(codec)
    features = read(symbols)
    assert features.shape == (1, read.count, 1, codec.alphabet)
    assert len(features[0, :, 0].t().unique(dim=0)) == codec.alphabet


def test_guiding_value_of_a_roll_is_its_density():
    codec = SymbolFeatures(Codec("onset_hold", 1))
    patch = torch.tensor([[[[0, 1, 2, 2]]], [[[0, 0, 0, 1]]]])
    level, features = codec.guide(patch)
    assert level.tolist() == [[3], [1]]
    assert codec.guide_alphabet(4) == 5
    torch.testing.assert_close(codec.guide_features(level, 4), features)


def assert_features(codec, cells, wanted):
    """Single cells, each a list of its channels' symbols, have the features wanted."""
    features = SymbolFeatures(codec)(torch.tensor(cells, dtype=torch.uint8)[:, :, None, None]).flatten(1)
    torch.testing.assert_close(features, torch.tensor(wanted, dtype=torch.float32))


def test_features_of_all_127_velocities_by_hand():
    struck = [[0, 0, 0], [1, 0, 1 / 127], [1, 0, 64 / 127], [1, 0, 1]]
    assert_features(Codec("velocity"), [[0], [1], [64], [127]], struck)
    assert_features(Codec("onset_hold"), [[0], [1], [64], [127], [128]], [*struck, [0, 1, 0]])
    alphabets = {name: Codec(name).alphabet for name in CODECS}
    assert alphabets == {"rgb": 256, "gray": 256, "binary": 2, "velocity": 128, "onset_hold": 129}


def test_features_of_few_velocities_and_of_none_by_hand():
    wanted = [[0, 0, 0], [1, 0, 1 / 3], [1, 0, 2 / 3], [1, 0, 1], [0, 1, 0]]
    assert_features(Codec("onset_hold", 3), [[0], [1], [2], [3], [4]], wanted)
    assert_features(Codec("binary"), [[0], [1]], [[0], [1]])


def test_features_of_colours_by_hand():
    wanted = [(255 / 255 - 0.485) / 0.229, (51 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert_features(Codec("rgb"), [[255, 51, 0]], [wanted])
    assert_features(Codec("gray"), [[0], [51], [255]], [[-1], [-0.6], [1]])


def test_guiding_values_by_hand():
    colours = SymbolFeatures(Codec("rgb"))
    patch = torch.tensor([[[[10, 20, 60]], [[255, 255, 0]], [[0, 0, 1]]]])  # means 30, 170 and 1/3
    level, exact = colours.guide(patch)
    assert level.tolist() == [[30, 170, 0]]
    wanted = [(30 / 255 - 0.485) / 0.229, (170 / 255 - 0.456) / 0.224, (1 / 765 - 0.406) / 0.225]
    assert exact[0].tolist() == pytest.approx(wanted)
    wanted[2] = -0.406 / 0.225  # the drawn level has lost the third
    assert colours.guide_features(level, 3)[0].tolist() == pytest.approx(wanted)
    rolls = SymbolFeatures(Codec("onset_hold", 2))
    level, exact = rolls.guide(torch.tensor([[[[0, 1, 3], [2, 0, 3]]]]))  # four of six cells sound
    assert (level.item(), exact.item()) == (4, pytest.approx(4 / 6))
    assert rolls.guide_features(torch.tensor([[5]]), 6).item() == pytest.approx(5 / 6)
    assert [rolls.guide_alphabet(cells) for cells in (1, 6, 254, 255, 256, 1000)] == [2, 7, 255, 256, 256, 256]
    assert colours.guide_alphabet(6) == 256
