"""Gumbel noise keyed by what it is for."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litscale.models.var.noise import gumbel_noise

STEP, WORD = 0x9E3779B97F4A7C15, 2**64


def splitmix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def noise(seed=0, images=16, scale=2, positions=16, vocab=64):
    return gumbel_noise(seed, torch.arange(images), scale, torch.arange(positions), vocab)


@settings(max_examples=30, deadline=None)
@given(st.integers(-(2**70), 2**70), st.integers(0, 2**40), st.integers(0, 12), st.integers(0, 2000))
def test_equals_the_definition_in_whole_numbers(seed, image, scale, position):
    key = splitmix(seed % WORD)
    for word in (image, scale, position):
        key = splitmix(((key ^ word) + STEP) % WORD)
    expected = []
    for code in range(1, 6):
        uniform = ((splitmix((key + code * STEP) % WORD) >> 40) | 1) * 2.0**-24
        expected.append(-math.log(-math.log1p(-uniform)))
    drawn = gumbel_noise(seed, torch.tensor([image]), scale, torch.tensor([position]), 5)
    torch.testing.assert_close(drawn[0, 0], torch.tensor(expected), rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=5), st.lists(st.integers(0, 15), min_size=1, max_size=5))
def test_does_not_depend_on_the_batch(images, positions):
    images, positions = torch.tensor(images), torch.tensor(positions)
    part = gumbel_noise(0, images, 2, positions, 64)
    assert torch.equal(part, noise()[images][:, positions])


def test_follows_the_gumbel_distribution():
    values = noise(images=32, positions=64, vocab=256).flatten().double()
    assert values.isfinite().all()
    uniform = (-(-values).exp()).exp().sort().values
    distance = (uniform - (torch.arange(len(values)) + 0.5) / len(values)).abs().max()
    assert distance < 1.95 / len(values) ** 0.5  # Kolmogorov-Smirnov, p = 0.001


def test_image_numbers_do_not_undo_seeds():
    rows = torch.cat([noise(seed, images=8).flatten(1) for seed in range(8)])
    assert len(rows.unique(dim=0)) == 64


def test_is_independent_across_keys():
    first = noise(images=16, positions=32, vocab=256)
    others = {
        "seed": noise(1, 16, 2, 32, 256),
        "scale": noise(0, 16, 3, 32, 256),
        "image": first.roll(1, 0),
        "position": first.roll(1, 1),
        "code": first.roll(1, 2),
        "swapped": first[:, :16].transpose(0, 1).repeat(1, 2, 1).where(~torch.eye(16, 32, dtype=bool)[..., None], 0),
    }
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 4 / first.numel() ** 0.5, name
    assert len(noise(images=64, positions=64, vocab=4).flatten(0, 1).unique(dim=0)) == 64 * 64


def test_argmax_draws_from_the_softmax():
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0)) * 2
    draws = (logits + noise(images=200, positions=200, vocab=8)).argmax(-1).flatten()
    expected = logits.softmax(0) * len(draws)
    chi_square = ((draws.bincount(minlength=8) - expected).square() / expected).sum()
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001
