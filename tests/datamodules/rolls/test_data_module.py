import os
import sys
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_runs import ready
from jsonargparse import ArgumentParser
from midi_bytes import header, meter, off, on, pedal, track, write
from mutations import BOMB

from datamodules import BachChorales, GenerationRequest, PianoRollDataModule
from datamodules.base import class_names_of
from datamodules.requests import RequestRecord
from litscale.music import Roll, read_midi, write_midi
from litscale.music.audio import Sound, render
from litscale.music.roll import RollFormat

Make = Callable[..., PianoRollDataModule]
Write = Callable[..., Path]


def test_shapes_are_known_before_setup(module: Make) -> None:
    dm = module(pitch_range=(36, 83), velocity_bins=8)
    assert dm.format == RollFormat("onset_hold", 4, 8, lowest_pitch=36, pitches=48)
    assert dm.canvas_shape == (1, 48, 16)
    assert dm.alphabet == 10
    assert dm.renderer.format == dm.format
    assert module().canvas_shape == (1, 128, 16)
    assert (module().num_classes, module().class_names) == (0, [])


@pytest.mark.parametrize("encoding", ["binary", "velocity", "onset_hold"])
def test_batches(module: Make, encoding: str) -> None:
    dm = ready(module(encoding=encoding, pitch_range=(40, 79)), "fit", "test")
    for loader in (dm.train_dataloader(), dm.val_dataloader(), dm.test_dataloader()):
        batch = next(iter(loader))
        assert set(batch) == {"canvas", "start"}
        assert batch["canvas"].dtype == torch.uint8
        assert batch["canvas"].shape == (4, 1, 40, 16)
        assert 0 < batch["canvas"].max() < dm.alphabet


def test_an_epoch_is_as_long_as_the_windows_side_by_side(module: Make) -> None:
    # Training pieces have 64, 72, ..., 120 steps: 4, 4, 5, 5, 6, 6, 7, 7 windows of 16.
    dm = ready(module())
    assert len(dm.train_dataloader().dataset) == 44
    assert len(dm.train_dataloader()) == 11
    assert len(ready(module(samples_per_epoch=10)).train_dataloader()) == 2


def test_validation_goes_through_the_files_in_order(module: Make, songs: Path) -> None:
    dm = ready(module())
    canvases = torch.cat([batch["canvas"] for batch in dm.val_dataloader()])
    windows = []
    for name in ("a/08.mid", "b/09.mid"):
        symbols = read_midi(songs / name).symbols
        windows += [symbols[:, start : start + 16] for start in range(0, symbols.shape[1] - 15, 16)]
    assert np.array_equal(canvases[:, 0].numpy(), np.stack(windows))


def test_the_split_does_not_move_when_files_are_added(module: Make, songs: Path, write_song: Write) -> None:
    def splits() -> dict[str, set[str]]:
        dm = ready(module(split_files=None, val_fraction=0.3, test_fraction=0.3), "fit", "test")
        assert dm._cache is not None
        return {split: {dm._cache.names[i] for i in pieces.chosen} for split, pieces in dm._pieces.items()}

    before = splits()
    assert sum(map(len, before.values())) == 12
    for number in range(20, 26):
        write_song(songs / "c" / f"{number}.mid", 64, seed=number)
    after = splits()
    assert all(before[split] <= after[split] for split in before)
    assert sum(map(len, after.values())) == 18


def test_labels_are_the_folders(module: Make) -> None:
    assert ready(module()).roll_labels("train") == []
    assert class_names_of(module(labels=True)) == []  # before the pieces are there
    dm = ready(module(labels=True))
    assert (dm.class_names, dm.num_classes) == (["a", "b"], 2)
    assert class_names_of(dm) == ["a", "b"]
    assert dm.roll_labels("train") == [0] * 4 + [1] * 4
    assert dm.roll_labels("val") == [0, 1]
    batch = next(iter(dm.val_dataloader()))
    assert batch["label"].dtype == torch.int64
    labels = torch.cat([batch["label"] for batch in dm.val_dataloader()])
    assert labels.tolist() == [0] * 8 + [1] * 8  # a/08 has 128 steps, b/09 136


def test_notes_outside_the_pitch_range_are_cut_and_reported_once(
    songs: Path, tmp_path: Path, write_notes: Write
) -> None:
    folder = tmp_path / "few"
    for name in "xyz":
        write_notes(folder / f"{name}.mid", [(60, 0, 16)])
    write_notes(folder / "wide.mid", [(20, 0, 4), (60, 0, 16), (61, 0, 4), (90, 2, 14)])
    dm = PianoRollDataModule(
        str(folder),
        window=16,
        pitch_range=(60, 71),
        split_files={"train": ["?.mid"], "val": ["wide.mid"]},
        cache_dir=str(tmp_path / "cache"),
    )
    dm.prepare_data()
    with pytest.warns(UserWarning, match=r"pitch_range 60\.\.71 cuts 2 of 7 notes, in 1 of 4 pieces"):
        dm.setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dm.setup("validate")
    canvas = next(iter(dm.val_dataloader()))["canvas"]
    assert canvas.shape == (1, 1, 12, 16)
    assert (canvas > 0).sum() == 16 + 4


def test_files_that_claim_to_be_longer_than_longest_are_skipped(module: Make, songs: Path) -> None:
    """36 bytes would become 128 MB; the longest song has 152 steps."""
    for number in range(4):
        (songs / f"bomb{number}.mid").write_bytes(BOMB)
    dm = module(split_files={"train": ["*/*"], "val": [], "test": []})
    dm.prepare_data()
    assert dm.cached.open(strict=False).errors == {
        f"bomb{number}.mid": f"{songs}/bomb{number}.mid: 1048576 steps are more than 131072" for number in range(4)
    }
    shorter = module(longest=151)
    shorter.prepare_data()
    assert "b/11.mid" in shorter.cached.open(strict=False).errors
    whole = module(longest=152)
    whole.prepare_data()
    assert "b/11.mid" in whole.cached.open(strict=False).names
    with pytest.raises(ValueError, match="longest must be at least 1 step, not 0"):
        module(longest=0)


def test_unreadable_files_are_listed_and_skipped(module: Make, songs: Path, write_notes: Write) -> None:
    (songs / "a" / "bad.mid").write_bytes(b"no music")
    write_notes(songs / "b" / "empty.mid", [])
    lists = {"train": ["a/*"], "val": ["b/*"]}
    dm = module(split_files=lists)
    dm.prepare_data()
    with pytest.warns(UserWarning, match="^2 of 14 MIDI files cannot be read and are skipped:\n") as caught:
        dm.setup("fit")
    message = str(caught[0].message)
    assert f"{songs}/a/bad.mid: not a MIDI file" in message
    assert f"{songs}/b/empty.mid: no notes" in message
    with pytest.raises(ValueError, match=r"strict: 2 of 14 MIDI files cannot be read: .*bad\.mid.*; remove them"):
        ready(module(split_files=lists, strict=True))


NOT_UTF_8 = os.fsdecode(b"caf\xe9 \xff.mid")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_not_utf_8(module: Make, songs: Path, tmp_path: Path) -> None:
    (songs / "a" / "00.mid").rename(songs / "a" / NOT_UTF_8)
    (songs / "b" / os.fsdecode(b"bad\xff.mid")).write_bytes(b"no music")
    dm = module(split_files=None, val_fraction=0.2, test_fraction=0)
    dm.prepare_data()
    with pytest.warns(
        UserWarning, match=r"1 of 13 MIDI files cannot be read and are skipped:\n.*bad.*\.mid: not a MIDI file"
    ):
        dm.setup("fit")
    assert dm._cache is not None
    assert f"a/{NOT_UTF_8}" in dm._cache.names
    assert sum(len(pieces.chosen) for pieces in dm._pieces.values()) == 12
    listed = tmp_path / "val.txt"
    listed.write_bytes(os.fsencode(f"a/{NOT_UTF_8}\n"))
    lists = {"train": ["*/0[1-7].mid"], "val": str(listed)}
    by_list = module(split_files=lists)
    with pytest.warns(UserWarning, match="1 of 13 MIDI files cannot be read"):
        by_list.setup("fit")
    assert [dm._cache.names[piece] for piece in by_list._pieces["val"].chosen] == [f"a/{NOT_UTF_8}"]


@pytest.fixture
def meters(tmp_path: Path) -> Path:
    """Two waltzes, a piece in 4/4 and one that states nothing, of 48 quarter notes each."""
    notes = [
        event for step in range(0, 192, 4) for event in ((step, on(60 + step % 7)), (step + 3, off(60 + step % 7)))
    ]
    folder = tmp_path / "meters"
    folder.mkdir()
    for name, signature in (("a", [(0, meter(3, 4))]), ("b", [(0, meter(6, 8))]), ("c", [(0, meter(4, 4))]), ("d", [])):
        write(folder / f"{name}.mid", header(), track(*signature, *notes))
    return folder


def test_meters_come_from_the_files(module: Make, meters: Path) -> None:
    lists = {"train": ["b.mid", "c.mid"], "val": ["d.mid"], "test": ["a.mid"]}
    write(meters / "e.mid", header(), track((0, meter(3, 4)), (0, on(60)), (64, off(60))))
    dm = module(folder=str(meters), split_files=lists)
    assert dm.format.beats_per_bar == dm.renderer.beats_per_bar == 4
    ready(dm, "fit", "test")
    assert dm._cache is not None
    assert dm._cache.beats_per_bar.tolist() == [3, 3, 4, 4, 3]
    # Samples are in the meter of most pieces; batches say where data is in another one.
    assert dm.format.beats_per_bar == dm.renderer.beats_per_bar == 3
    batch = next(iter(dm.val_dataloader()))
    assert batch["beats_per_bar"].tolist() == [4] * 4
    assert batch["beats_per_bar"].dtype == torch.float32
    assert {meter for batch in dm.train_dataloader() for meter in batch["beats_per_bar"].tolist()} == {3, 4}
    assert "beats_per_bar" not in next(iter(dm.test_dataloader()))


def test_the_option_beats_per_bar_is_for_all_pieces(module: Make, meters: Path) -> None:
    dm = ready(module(folder=str(meters), beats_per_bar=3.5, split_files={"train": ["a.mid"], "val": ["c.mid"]}))
    assert dm.format.beats_per_bar == 3.5
    assert "beats_per_bar" not in next(iter(dm.val_dataloader()))
    assert dm.format.steps_per_bar == 14


def test_samples_without_data_are_in_the_meter_of_the_request_or_the_checkpoint(module: Make, meters: Path) -> None:
    lists = {"train": ["[ab].mid"], "val": ["c.mid"]}
    (meters / "d.mid").unlink()
    trained = ready(module(folder=str(meters), split_files=lists))
    assert trained.state_dict() == {"beats_per_bar": 3}
    dm = module(folder="elsewhere", predict=GenerationRequest(1))
    dm.setup("predict")
    assert dm.format.beats_per_bar == 4
    dm.load_state_dict(trained.state_dict())
    assert dm.format.beats_per_bar == 3
    for request in (
        GenerationRequest(1, prefix=str(meters / "c.mid"), prefix_steps=8),
        GenerationRequest(1, inpaint=str(meters / "c.mid"), region=(0, 4)),
    ):
        dm = module(folder="elsewhere", predict=request)
        dm.load_state_dict(trained.state_dict())
        dm.setup("predict")
        assert dm.format.beats_per_bar == dm.renderer.beats_per_bar == 4
        assert module(folder="elsewhere", beats_per_bar=5, predict=request).format.beats_per_bar == 5


def test_samples_of_a_class_are_in_its_meter(module: Make, tmp_path: Path) -> None:
    notes = [(0, on(60)), (480 * 8, off(60))]
    for name, signature in (("a/1", (3, 4)), ("b/1", (4, 4)), ("b/2", (4, 4)), ("c/1", (6, 4))):
        path = tmp_path / "classes" / f"{name}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, header(), track((0, meter(*signature)), *notes))
    folder = str(tmp_path / "classes")
    trained = ready(module(folder=folder, labels=True, split_files={"train": ["*"]}))
    assert [trained.sample_meter(label) for label in (None, 0, 1, 2)] == [4, 3, 4, 6]
    assert trained.format.beats_per_bar == 4
    for label, expected in (("a", 3), (2, 6), (None, 4)):
        dm = module(folder=folder, labels=True, predict=GenerationRequest(1, label=label))
        dm.load_state_dict(trained.state_dict())
        dm.setup("predict")
        dm.predict_dataloader()
        assert dm.format.beats_per_bar == dm.renderer.beats_per_bar == expected
    old = module(folder=folder, labels=True, predict=GenerationRequest(1, label="a"))
    old.load_state_dict({"beats_per_bar": 4.0})  # of a checkpoint before classes had meters
    old.setup("predict")
    old.predict_dataloader()
    assert old.format.beats_per_bar == 4


def test_a_continued_file_keeps_its_tempo(module: Make, tmp_path: Path) -> None:
    symbols = np.zeros((128, 32), np.uint8)
    symbols[60, :8] = 1
    write_midi(Roll(symbols, RollFormat("binary", tempo=93.0)), tmp_path / "song.mid")
    dm = module(folder="elsewhere", predict=GenerationRequest(1, prefix=str(tmp_path / "song.mid"), prefix_steps=8))
    dm.setup("predict")
    assert dm.renderer.format.tempo == pytest.approx(93, abs=0.01)
    assert dm.format.tempo == 120  # of the canvases, which have none


def test_the_pedal_is_an_option(module: Make, tmp_path: Path) -> None:
    folder = tmp_path / "pedal"
    folder.mkdir()
    write(folder / "a.mid", header(), track((0, pedal(127)), (0, on(60)), (2, off(60)), (16, pedal(0))))
    lists = {"train": ["a.mid"]}
    sounding = {}
    for option in (False, True):
        dm = ready(module(folder=str(folder), window=2, pedal=option, encoding="binary", split_files=lists))
        sounding[option] = [int(roll.sum()) for roll in dm.rolls("train")]
    assert sounding == {False: [2], True: [16]}


def test_no_readable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.mid").write_bytes(b"no music")
    with pytest.raises(ValueError, match=r"none of 1 files could be read: .*bad\.mid: not a MIDI file"):
        PianoRollDataModule(str(tmp_path), cache_dir=str(tmp_path / "cache")).prepare_data()


def test_missing_preparation_and_folders(module: Make, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"call prepare_data\(\) first"):
        module().setup("fit")
    for step in (PianoRollDataModule.prepare_data, lambda dm: dm.setup("fit")):
        with pytest.raises(FileNotFoundError, match="folder: there is no folder"):
            step(module(folder=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": None}, r"give one of folder \(of MIDI files\) and source .*; neither is given"),
        ({"folder": "x", "source": BachChorales()}, "both are given"),
        ({"encoding": "text"}, "encoding must be one of"),
        ({"velocity_bins": 0}, "velocity_bins must be in 1..127"),
        ({"steps_per_beat": 0}, "steps_per_beat must be at least 1"),
        ({"beats_per_bar": 0}, "beats_per_bar must be at least 1 step"),
        ({"beats_per_bar": float("nan")}, "beats_per_bar must be at least 1 step"),
        ({"phase": "late"}, "phase must be auto or a number"),
        ({"pitch_range": (60, 50)}, r"pitch_range must be two MIDI pitches, 0 to 127, lower first, not \[60, 50\]"),
        ({"pitch_range": (0, 128)}, "pitch_range must be"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"samples_per_epoch": 0}, "samples_per_epoch must be at least 1"),
        ({"transpose": -1}, "transpose must be at least 0"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        (
            {"source": BachChorales(), "labels": True},
            "labels: the pieces of BachChorales have no classes: give folder",
        ),
        ({"predict": GenerationRequest(label=0)}, r"predict\.label is given, but the data has no classes"),
    ],
)
def test_impossible_options(module: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_an_epoch_must_fill_a_batch(module: Make) -> None:
    dm = ready(module(batch_size=64))
    with pytest.raises(ValueError, match=r"44 windows, 44 for each device.*batch_size \(now 64\).* at least 64"):
        dm.train_dataloader()


def test_every_device_needs_something_to_do(module: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dm = ready(module())
    monkeypatch.setattr(dm, "ranks", lambda: (17, 0))
    with pytest.raises(ValueError, match=r"44 windows, 2 for each device.*samples_per_epoch, for at least 68 windows"):
        dm.train_dataloader()
    with pytest.raises(ValueError, match="the val split has 16 windows for 17 devices: use fewer devices"):
        dm.val_dataloader()


def test_the_window_must_fit(module: Make) -> None:
    with pytest.raises(ValueError, match=r"window: 500 steps are more than any piece of the train split"):
        ready(module(window=500))


def test_no_validation_split_is_no_validation(module: Make) -> None:
    dm = ready(module(split_files=None, val_fraction=0, test_fraction=0))
    assert dm.val_dataloader() == []
    with pytest.raises(ValueError, match=r"no piece of 12 is in the test split: raise test_fraction"):
        dm.setup("test")


def test_options_that_change_symbols_change_the_cache(module: Make, tmp_path: Path) -> None:
    for options in ({}, {"encoding": "binary"}, {"velocity_bins": 4}, {"steps_per_beat": 8}, {"phase": 0.0}):
        ready(module(**options))
    assert len(list((tmp_path / "cache").iterdir())) == 5
    ready(module(window=32, pitch_range=(0, 99), transpose=2, labels=True))
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_prediction_needs_no_data(tmp_path: Path) -> None:
    dm = PianoRollDataModule(str(tmp_path / "elsewhere"), window=8, batch_size=2, predict=GenerationRequest(3, seed=5))
    dm.setup("predict")
    batches = list(dm.predict_dataloader())
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2]]
    assert [batch["seed"] for batch in batches] == [5] * 2
    assert batches[0]["known"].shape == (2, 1, 128, 8)


def test_samples_are_played_on_the_instrument_that_is_given(tmp_path: Path) -> None:
    symbols = np.zeros((1, 128, 8), np.uint8)
    symbols[0, 60] = 1
    played = []
    for name in ("choir aahs", "piano"):
        dm = PianoRollDataModule(str(tmp_path), encoding="binary", window=8, sound=Sound(name))
        played.append(dm.renderer.audio(symbols)[0])
        assert np.array_equal(played[-1], render(Roll(symbols[0], dm.format), 22050, Sound(name)))
    assert np.abs(played[0] - played[1]).max() > 0.1


def test_requests_are_described(module: Make, songs: Path) -> None:
    song = str(songs / "a" / "00.mid")

    def described(pitch_range: tuple[int, int] = (40, 79), **options: Any) -> RequestRecord:
        dm = module(pitch_range=pitch_range, window=16, batch_size=2, predict=GenerationRequest(**options))
        dm.setup("predict")
        return dm.described_request()

    plain = described(num_samples=3)
    assert plain.title == "samples"
    assert plain.options == {
        "num_samples": 3,
        "length": 16,
        "prefix": None,
        "prefix_steps": None,
        "inpaint": None,
        "region": None,
        "region_pitches": None,
        "label": None,
        "seed": 0,
        "batch_size": 2,
        "sound": {"instrument": "acoustic grand piano", "font": None},
    }
    going_on = described(prefix=song, prefix_steps=3, length=24, seed=7)
    assert going_on.title == f"prefix_{Path(song).stem}_3_steps_seed_7"
    assert (going_on.options["prefix"], going_on.options["length"]) == (song, 24)
    assert going_on.options["prefix_sha256"] == sha256(Path(song).read_bytes()).hexdigest()
    other_rows = described(pitch_range=(41, 80), prefix=song, prefix_steps=3, length=24, seed=7)
    assert other_rows.options["given_sha256"] != going_on.options["given_sha256"]
    changed = described(inpaint=song, region=(2, 5), region_pitches=(60, 71))
    assert changed.title == f"inpaint_{Path(song).stem}_steps_2_5_pitches_60_71"


def test_predicted_classes_must_exist(module: Make) -> None:
    for label in (2, -1, "c"):
        with pytest.raises(ValueError, match=rf"predict\.label is {label}, but the classes are 0 a; 1 b"):
            requested(module(labels=True, predict=GenerationRequest(label=label)))


def requested(dm: PianoRollDataModule) -> list[int]:
    dm.setup("predict")
    return next(iter(dm.predict_dataloader()))["label"].tolist()


def test_classes_are_requested_by_number_or_name(module: Make) -> None:
    for label in ("b", 1):
        dm = module(labels=True, predict=GenerationRequest(2, label=label))
        assert requested(dm) == [1, 1]
        assert dm.described_request().title == f"label_{label}"


def test_classes_are_those_of_the_checkpoint(module: Make, songs: Path) -> None:
    trained = ready(module(labels=True)).state_dict()
    assert trained["class_names"] == ["a", "b"]
    for label in ("b", 1):
        dm = module(folder="elsewhere", labels=True, predict=GenerationRequest(1, label=label))
        dm.load_state_dict(trained)
        assert requested(dm) == [1]
        assert class_names_of(dm) == ["a", "b"]
    (songs / "b").rename(songs / "c")
    changed = ready(module(labels=True, split_files={"train": ["*"]}))
    with pytest.raises(ValueError, match="was trained on the classes a; b, but the data has a; c: give data with"):
        changed.load_state_dict(trained)


def test_a_name_that_is_a_number_is_meant_by_it(module: Make) -> None:
    dm = module(folder="elsewhere", labels=True, predict=GenerationRequest(1, label=10))
    dm.load_state_dict({"beats_per_bar": 4.0, "class_names": ["1", "10", "2"], "class_beats_per_bar": [4.0] * 3})
    assert requested(dm) == [1]


def test_the_command_line_knows_every_option() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(PianoRollDataModule, "data")
    text = """
    data:
      folder: songs
      phase: 0.25
      pitch_range: [36, 83]
      split_files: {train: [a.mid, b/*], val: val.txt}
      predict: {num_samples: 2, inpaint: x.mid, region: [0, 16], region_pitches: [60, 71]}
    """
    config = parser.parse_string(text.replace("\n    ", "\n"))
    dm = parser.instantiate_classes(config).data
    assert dm.pitch_range == (36, 83)
    assert dm.reader.phase == 0.25
    assert dm.splits.lists == {"train": ["a.mid", "b/*"], "val": "val.txt"}
    assert dm.request == GenerationRequest(2, inpaint="x.mid", region=(0, 16), region_pitches=(60, 71))
    described = parser.format_help()
    assert "number of semitones, at most this many up or down" in " ".join(described.split())
    assert "first and last step (not included) to regenerate" in " ".join(described.split())
