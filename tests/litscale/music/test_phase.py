"""The constant offset of songs from their grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from litscale.music.midi_events import read_events
from litscale.music.phase import CANDIDATES, estimate_phase, wrap

SONGS = Path(__file__).parents[2] / "data" / "pop909"


def close_share(onsets: np.ndarray, phase: float) -> float:
    """The share of onsets within an eighth of a step of the grid."""
    return np.mean(np.abs(wrap(onsets - phase)) <= 1 / 8)


@pytest.mark.parametrize("count", [1, 7, 500])
def test_on_the_grid_it_is_exactly_zero(count: int) -> None:
    assert estimate_phase(np.random.default_rng(count).integers(0, 999, count).astype(float)) == 0.0


@pytest.mark.parametrize("phase", CANDIDATES)
def test_a_shift_is_found(phase: float) -> None:
    assert estimate_phase(np.arange(50) + phase) == phase


@pytest.mark.parametrize("phase", [-0.49, -0.21, 0.03, 0.36, 0.5])
def test_a_noisy_shift_is_nearly_found(phase: float) -> None:
    onsets = np.random.default_rng(0).normal(np.arange(400) + phase, 0.05)
    assert abs(wrap(estimate_phase(onsets) - phase)) <= 1 / 16


def test_no_onsets() -> None:
    assert estimate_phase(np.empty(0)) == 0.0


def test_wrap() -> None:
    np.testing.assert_allclose(wrap(np.array([0.5, -0.5, 0.75, 1.25, -3.1])), [0.5, 0.5, -0.25, 0.25, -0.1])


@pytest.mark.parametrize(
    ("song", "share"),
    # 331 is played freely: it is one of the tenth of POP909 that no constant phase brings near the grid.
    [("151", 0.9), ("161", 0.9), ("331", 0.55)],
)
def test_songs_come_near_the_grid(song: str, share: float) -> None:
    events = read_events((SONGS / f"{song}.mid").read_bytes(), song)
    onsets = events.notes["start"] / (events.ticks_per_quarter / 4)
    best = close_share(onsets, estimate_phase(onsets))
    assert best >= share
    assert all(close_share(onsets, phase) <= best for phase in CANDIDATES)
