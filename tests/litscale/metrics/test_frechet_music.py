"""The Frechet music distance, with a stand-in for its package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from litscale.metrics.frechet_music import FrechetMusicDistance
from litscale.music import Roll, notes, read_midi

PACKAGE = "frechet_music_distance"


class StandIn:
    """Like CLaMP2Extractor of the package's version 1.0.0: reads the file of its config, else downloads another."""

    def __init__(self, verbose: bool = True) -> None:
        self.path = CONFIG.CLAMP2_WEIGHTS_PATH
        if self.path.read_bytes() != b"clamp":
            self._download_checkpoint()

    def _download_checkpoint(self) -> None:
        raise AssertionError("downloads")


CONFIG = SimpleNamespace(CLAMP2_WEIGHTS_PATH=Path("elsewhere"))


class Measure:
    """The number of notes in the MIDI files of the generated set, and that of the files of the other."""

    def __init__(self, extractor: StandIn, verbose: bool) -> None:
        assert isinstance(extractor, StandIn)

    def score(self, reference_path: str, test_path: str) -> float:
        files = [sorted(Path(path).glob("*.mid")) for path in (reference_path, test_path)]
        return 100 * len(files[0]) + sum(len(notes(read_midi(file))) for file in files[1])


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [PACKAGE, f"{PACKAGE}.models", f"{PACKAGE}.models.clamp2", f"{PACKAGE}.models.clamp2.clamp2_extractor"]
    modules = [ModuleType(name) for name in names]
    modules[0].FrechetMusicDistance = Measure  # type: ignore[attr-defined]
    modules[2].clamp2_extractor = modules[3]  # type: ignore[attr-defined]
    modules[3].CLaMP2Extractor, modules[3].config = StandIn, CONFIG  # type: ignore[attr-defined]
    for name, module in zip(names, modules, strict=True):
        monkeypatch.setitem(sys.modules, name, module)


def roll(count: int) -> Roll:
    symbols = np.zeros((128, 16), np.uint8)
    symbols[60, :count] = 64
    return Roll(symbols)


def test_midi_files_of_both_sets(package: None, tmp_path: Path) -> None:
    weights = tmp_path / "clamp.pth"
    weights.write_bytes(b"clamp")
    measure = FrechetMusicDistance(str(weights))
    assert measure([roll(2), roll(3)], [roll(1)] * 4) == 400 + 5
    assert weights == CONFIG.CLAMP2_WEIGHTS_PATH


def test_nothing_is_downloaded_for_a_damaged_file(package: None, tmp_path: Path) -> None:
    weights = tmp_path / "clamp.pth"
    weights.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"clamp\.pth does not hold the weights of CLaMP 2"):
        FrechetMusicDistance(str(weights))([roll(2)], [roll(1)])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights of CLaMP 2 at .*nothing"):
        FrechetMusicDistance(str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    (tmp_path / "clamp.pth").touch()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'frechet-music-distance>=1'"):
        FrechetMusicDistance(str(tmp_path / "clamp.pth"))
