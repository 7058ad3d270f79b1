from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import GenerationRequest
from datamodules.requests import Requests
from datamodules.rolls.requests import request_canvas
from litscale.music import read_midi
from litscale.music.roll import RollFormat

FORM = RollFormat(lowest_pitch=36, pitches=48)
WINDOW = 32

Write = Callable[..., Path]


@pytest.fixture
def song(tmp_path: Path, write_song: Write) -> str:
    return str(write_song(tmp_path / "song.mid", 40))


def canvas_of(**options: Any) -> tuple[np.ndarray, np.ndarray]:
    return request_canvas(GenerationRequest(**options), FORM, WINDOW, read_midi)


def test_from_nothing() -> None:
    canvas, known = canvas_of()
    assert (canvas.dtype, canvas.shape, known.dtype, known.shape) == (np.uint8, (48, WINDOW), bool, (48, WINDOW))
    assert not canvas.any()
    assert not known.any()
    assert canvas_of(length=48)[0].shape == (48, 48)


def test_a_prefix_is_known_and_nothing_else(song: str) -> None:
    canvas, known = canvas_of(prefix=song, prefix_steps=12)
    assert known[:, :12].all()
    assert not known[:, 12:].any()
    assert np.array_equal(canvas[:, :12], read_midi(song).symbols[36:84, :12])
    assert not canvas[:, 12:].any()
    assert canvas_of(prefix=song, length=64)[1].sum() == 40 * 48  # the whole piece


def test_a_region_is_unknown_and_nothing_else(song: str) -> None:
    canvas, known = canvas_of(inpaint=song, region=(8, 16), region_pitches=(60, 83))
    hole = np.zeros_like(known)
    hole[24:48, 8:16] = True
    assert np.array_equal(known, ~hole)
    assert np.array_equal(canvas, np.where(hole, 0, read_midi(song).symbols[36:84, :WINDOW]))
    assert (~canvas_of(inpaint=song, region=(8, 16))[1]).sum() == 8 * 48
    assert (~canvas_of(inpaint=song, region_pitches=(36, 36))[1]).sum() == WINDOW


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, r"predict\.num_samples must be at least 1, not 0"),
        ({"length": 0}, r"predict\.length must be at least 1"),
        ({"prefix": "a.mid", "inpaint": "b.mid"}, r"prefix and predict\.inpaint are both given; set one"),
        ({"prefix_steps": 4}, r"predict\.prefix_steps is given without predict\.prefix"),
        ({"prefix": "a.mid", "prefix_steps": 0}, r"predict\.prefix_steps must be at least 1, not 0"),
        ({"region": (0, 4)}, r"need predict\.inpaint"),
        ({"inpaint": "a.mid"}, r"give predict\.region, predict\.region_pitches or both"),
    ],
)
def test_impossible_requests(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationRequest(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "SONG", "prefix_steps": 41}, r"prefix_steps is 41, but .*song\.mid has 40 steps; take at most"),
        ({"prefix": "SONG"}, r"40 steps of .*song\.mid leave nothing to generate in 32 steps; set .* below 32"),
        ({"prefix": "SONG", "prefix_steps": 32}, r"predict\.length above 32"),
        ({"inpaint": "SONG", "region": (0, 4), "length": 48}, r"song\.mid has 40 steps, fewer .* at most 40"),
        ({"inpaint": "SONG", "region": (0, 33)}, r"predict\.region is 0\.\.33, but must lie in the 32 steps"),
        ({"inpaint": "SONG", "region": (-1, 4)}, r"predict\.region is -1\.\.4"),
        ({"inpaint": "SONG", "region": (4, 4)}, r"0 <= start < end <= 32"),
        ({"inpaint": "SONG", "region_pitches": (30, 40)}, r"predict\.region_pitches is 30\.\.40, .* 36\.\.83"),
        ({"inpaint": "SONG", "region_pitches": (50, 40)}, r"lower first"),
    ],
)
def test_requests_that_do_not_fit(song: str, options: dict[str, Any], message: str) -> None:
    filled = {name: song if value == "SONG" else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        canvas_of(**filled)


@pytest.mark.parametrize("option", ["prefix", "inpaint"])
def test_files_that_cannot_be_used(tmp_path: Path, option: str, write_notes: Write) -> None:
    region = {"region": (0, 4)} if option == "inpaint" else {}
    with pytest.raises(FileNotFoundError, match=rf"predict\.{option}: there is no file nowhere\.mid"):
        canvas_of(**{option: "nowhere.mid"}, **region)
    (tmp_path / "bad.mid").write_bytes(b"no music")
    with pytest.raises(ValueError, match=rf"predict\.{option}: .*bad\.mid.*; give a MIDI file with notes"):
        canvas_of(**{option: str(tmp_path / "bad.mid")}, **region)
    with pytest.raises(ValueError, match=rf"predict\.{option}: .*empty\.mid.*no notes"):
        canvas_of(**{option: str(write_notes(tmp_path / "empty.mid", []))}, **region)
    with pytest.raises(FileNotFoundError, match=rf"predict\.{option}: there is no file {tmp_path}"):
        canvas_of(**{option: str(tmp_path)}, **region)
    with pytest.raises(ValueError, match=rf"predict\.{option}: all notes of .* are outside of pitch_range 36\.\.83"):
        canvas_of(**{option: str(write_notes(tmp_path / "low.mid", [(20, 0, 8)]))}, **region)


def test_notes_outside_the_canvas_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_notes: Write
) -> None:
    said: list[str] = []
    monkeypatch.setattr("datamodules.rolls.requests.rank_zero_warn", said.append)
    path = write_notes(tmp_path / "low.mid", [(60, 0, 8), (20, 4, 4), (100, 6, 2)])
    assert canvas_of(prefix=str(path))[0].any()
    assert said == [f"pitch_range 36..83 cuts 2 of 3 notes of {path}"]


def test_batches_are_numbered_through() -> None:
    request = GenerationRequest(num_samples=7, seed=100, label=2)
    canvas, known = request_canvas(request, FORM, WINDOW, read_midi)
    batches = list(map(Requests(request, canvas, known, batch_size=3).__getitem__, range(3)))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch["seed"] for batch in batches] == [100] * 3
    first = batches[0]
    assert (first["canvas"].dtype, first["canvas"].shape) == (torch.uint8, (3, 1, 48, WINDOW))
    assert (first["known"].dtype, first["known"].shape) == (torch.bool, (3, 1, 48, WINDOW))
    assert (first["label"].dtype, first["label"].tolist()) == (torch.int64, [2, 2, 2])
    assert first["index"].dtype == torch.int64


def test_no_label_means_no_entry() -> None:
    request = GenerationRequest()
    assert "label" not in Requests(request, *request_canvas(request, FORM, WINDOW, read_midi), 4)[0]
