"""Collections of pieces of a user's own."""

from pathlib import Path

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from datamodules import MidiFolder, PianoRollDataModule, RollSource
from datamodules.rolls.source import CachedPieces
from litscale.music import Roll, RollFormat, write_midi

SCALES = '''
import numpy as np

from datamodules import RollSource
from litscale.music import Roll


class Scales(RollSource):
    """Twelve pieces, each one note."""

    def __init__(self, steps: int = 32) -> None:
        self.steps = steps

    def names(self):
        return [f"scale {number}" for number in range(12)]

    def read(self, name, form):
        symbols = np.zeros((128, self.steps), np.uint8)
        symbols[60 + int(name.split()[1]), :4] = 1
        return Roll(symbols, form)

    def fingerprint(self):
        return f"version 1, {self.steps} steps"
'''


@pytest.fixture
def parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArgumentParser:
    """A command line whose working directory has a source of its own."""
    (tmp_path / "own_scales.py").write_text(SCALES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    parser = ArgumentParser()
    parser.add_class_arguments(PianoRollDataModule, "data")
    return parser


def test_a_source_of_the_working_directory(parser: ArgumentParser, tmp_path: Path) -> None:
    text = """
data:
  source: {class_path: own_scales.Scales, init_args: {steps: 48}}
  encoding: binary
  window: 16
  batch_size: 2
  split_files: {train: ["scale ?"], val: ["scale 1?"]}
  cache_dir: cache
"""
    data = parser.instantiate_classes(parser.parse_string(text)).data
    data.prepare_data()
    data.setup("fit")
    assert data.canvas_shape == (1, 128, 16)
    assert [int(roll.sum()) for roll in data.rolls("train")] == [4] * 10
    (batch,) = data.val_dataloader().__iter__().__next__()["canvas"].shape[:1]
    assert batch == 2
    assert next(iter(data.train_dataloader()))["canvas"].shape == (2, 1, 128, 16)


def test_a_source_by_its_name_alone(parser: ArgumentParser) -> None:
    for given in ("own_scales.Scales", "datamodules.BachChorales"):
        data = parser.instantiate_classes(parser.parse_args([f"--data.source={given}"])).data
        assert type(data.source).__name__ == given.split(".")[1]


class Own(RollSource):
    """Its content and its readings are given."""

    def __init__(self, content: str = "1", form: RollFormat | None = None) -> None:
        self.content, self.form = content, form

    def names(self) -> list[str]:
        return ["piece"]

    def read(self, name: str, form: RollFormat) -> Roll:
        import numpy as np

        return Roll(np.ones((128, 8), np.uint8), self.form or form)

    def fingerprint(self) -> str:
        return self.content


class Derived(Own):
    """The same content, read by other code."""


def test_another_source_or_content_is_another_cache(tmp_path: Path) -> None:
    for source in (Own(), Own("2"), Own(), Derived()):
        CachedPieces(source, RollFormat(), str(tmp_path)).prepare()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_piece_in_another_format_is_refused(tmp_path: Path) -> None:
    CachedPieces(Own(form=RollFormat(beats_per_bar=3)), RollFormat(), str(tmp_path)).prepare()
    pieces = CachedPieces(Own("2", form=RollFormat("binary")), RollFormat(), str(tmp_path))
    with pytest.raises(ValueError, match=r"piece: Own\.read gave RollFormat\(encoding='binary'"):
        pieces.prepare()


def test_pieces_without_classes_have_no_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels: the pieces of Own have no classes: give folder"):
        PianoRollDataModule(source=Own(), labels=True)


def test_pieces_have_tempi_and_meters_of_their_own(tmp_path: Path) -> None:
    symbols = np.zeros((128, 32), np.uint8)
    symbols[60, :8] = 1
    folder = tmp_path / "songs"
    folder.mkdir()
    for tempo, beats in ((93.0, 4.0), (120.0, 3.0), (180.0, 4.0)):
        form = RollFormat("binary", tempo=tempo, beats_per_bar=beats)
        write_midi(Roll(symbols, form), folder / f"at {tempo:.0f}.mid")
    pieces = CachedPieces(MidiFolder(str(folder)), RollFormat("binary"), str(tmp_path / "cache"))
    pieces.prepare()
    cache = pieces.open(strict=True)
    assert cache.names == ["at 120.mid", "at 180.mid", "at 93.mid"]
    assert cache.beats_per_bar.tolist() == [3, 4, 4]
