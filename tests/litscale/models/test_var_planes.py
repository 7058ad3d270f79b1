"""Symbols to planes and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litscale.models.var import Planes

CODECS = ("rgb", "gray", "binary", "velocity", "onset_hold")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bins", [1, 2, 8, 127])
def test_every_symbol_survives(codec, bins):
    planes = Planes(codec, bins)
    symbols = torch.arange(planes.alphabet, dtype=torch.uint8).view(1, 1, -1, 1).repeat(2, planes.channels, 1, 3)
    found = planes.to_planes(symbols)
    assert found.shape == (2, planes.count, planes.alphabet, 3)
    assert found.dtype == torch.float32
    assert found.abs().max() <= 1
    assert torch.equal(planes.to_symbols(found), symbols)


@given(st.sampled_from(CODECS), st.integers(1, 127), st.integers(0, 2**32), st.floats(0, 0.45))
@settings(max_examples=60, deadline=None)
def test_small_errors_change_no_symbol(codec, bins, seed, share):
    planes = Planes(codec, bins)
    generator = torch.Generator().manual_seed(seed)
    shape = (1, planes.channels, 4, 4)
    symbols = torch.randint(0, planes.alphabet, shape, dtype=torch.uint8, generator=generator)
    step = 2 / 255 if planes.is_image else 1 / (1 if codec == "binary" else bins)
    noise = (2 * torch.rand(1, planes.count, 4, 4, generator=generator) - 1) * share * step
    assert torch.equal(planes.to_symbols(planes.to_planes(symbols) + noise), symbols)


def test_what_rolls_mean():
    symbols = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).view(1, 1, 1, 4)
    planes = Planes("onset_hold", 2).to_planes(symbols)
    assert planes[0, :, 0].tolist() == [[-1, 0.5, 1, -1], [-1, -1, -1, 1]]
    unsure = torch.tensor([[0.9, -0.9, 0.2], [0.1, 0.1, -0.5]]).view(1, 2, 1, 3)
    assert Planes("onset_hold", 2).to_symbols(unsure).flatten().tolist() == [2, 3, 1]


def test_bad_options():
    with pytest.raises(ValueError, match=r"codec must be one of rgb, gray, .*, not 'midi'"):
        Planes("midi")
    with pytest.raises(ValueError, match=r"velocity_bins must be in 1..127, not 0"):
        Planes("velocity", 0)
