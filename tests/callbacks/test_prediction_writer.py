"""Samples of predict as files."""

import json
import platform
import sys
import time
from hashlib import sha256

import numpy as np
import pytest
import torch
from callback_toys import FORM, Requests, ToyRolls, TwoLevels, fractal, roll, trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from callbacks import PredictionWriter
from datamodules import FashionMNISTDataModule, ImageRequest
from datamodules.images.renderer import ImageRenderer
from lit_models import Optimization
from litscale.music import MidiError, RollRenderer, Sound, read_midi


def predict(folder, module=None, **options):
    callback = PredictionWriter(str(folder / "out"), **options)
    run = trainer(folder, callbacks=[callback])
    canvases = run.predict(module or fractal(), ToyRolls())
    (made,) = (folder / "out").iterdir()
    return made, torch.cat([batch["canvas"] for batch in canvases])


def test_each_sample_has_its_files(tmp_path, capsys):
    began = time.perf_counter()
    folder, canvases = predict(tmp_path)
    names = [f"sample_0000{i}.{kind}" for i in range(6) for kind in ("json", "mid", "png")]
    assert sorted(path.name for path in folder.iterdir()) == names
    for i, canvas in enumerate(canvases.numpy()):
        # The model is untrained: what it writes may hold notes that never start, which MIDI cannot hold.
        try:
            restored = read_midi(folder / f"sample_0000{i}.mid", FORM.encoding, phase=0, velocity_bins=3)
        except MidiError:
            continue
        sounding = restored.symbols[60:72, : canvas.shape[2]] > 0
        assert not (sounding & (canvas[0, :, : sounding.shape[1]] == 0)).any()
        record = json.loads((folder / f"sample_0000{i}.json").read_text())
        assert (record["index"], record["row"], record["settings"]["seed"]) == (i, i % 2, i // 2)
        assert record["settings"]["iterations"] == 2
        assert record["label"] is None
        assert (record["checkpoint"], record["step"], record["sha256"], record["weight_files"]) == (
            None,
            None,
            None,
            {},
        )
        assert record["request"] == {"batches": 3}
        assert record["seconds"]["samples"] == 2
        assert 0 < record["seconds"]["batch"] < time.perf_counter() - began
        assert record["files"] == [f"sample_0000{i}.mid", f"sample_0000{i}.png"]
        expected = RollRenderer(FORM).statistics(canvas)
        assert record["statistics"]["note_density"] == expected["note_density"]
    listed = {line.strip() for line in capsys.readouterr().out.splitlines()}
    assert {str(path) for path in folder.iterdir()} <= listed
    assert len(list(folder.iterdir())) == 18


def test_given_cells_are_drawn_as_given(tmp_path):
    folder, canvases = predict(tmp_path)
    request = Requests()[0]
    assert torch.equal(canvases[0][request["known"][0]], request["canvas"][0][request["known"][0]])
    expected = RollRenderer(FORM).picture(canvases[0].numpy(), request["known"][0].numpy())
    with Image.open(folder / "sample_00000.png") as picture:
        assert (picture.convert("RGB").tobytes()) == expected.tobytes()


def test_animations_sounds_and_scores(tmp_path):
    module = fractal()
    folder, _ = predict(tmp_path, module, gif=True, wav=True, score=True)
    assert not module.record_frames  # only as long as it is needed
    assert sum(path.suffix == ".wav" for path in folder.iterdir()) == 6
    assert sum(path.suffix == ".svg" for path in folder.iterdir()) == 6
    # The first level has four patches, of which three have a cell to make and one is half known: four steps.
    assert Image.open(folder / "sample_00003.gif").n_frames == 4


def test_without_the_engraver_nothing_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "verovio", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'verovio>=5' \(or litscale\[score\]\)"):
        predict(tmp_path, fractal(), score=True)
    assert not list(tmp_path.rglob("sample_*"))


def test_with_a_damaged_font_nothing_is_sampled(tmp_path):
    (tmp_path / "font.sf2").write_text("no font")
    data = ToyRolls()
    data.renderer = RollRenderer(FORM, sound=Sound(font=str(tmp_path / "font.sf2")))
    run = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out"), wav=True)])
    with pytest.raises(ValueError, match=r"font\.sf2: no sound font"):
        run.predict(fractal(), data)
    assert not list(tmp_path.rglob("sample_*"))


def test_bars_without_a_time_signature_have_no_score(tmp_path):
    data = ToyRolls()
    data.renderer = RollRenderer(FORM, beats_per_bar=3.3)
    run = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out"), score=True)])
    with pytest.raises(ValueError, match=r"bars of 3\.3 quarter notes have no time signature: set score to false"):
        run.predict(fractal(), data)


class Labelled(TwoLevels):
    """Makes black images of the classes that are asked for."""

    def predict_step(self, batch, batch_idx):
        canvas = torch.zeros_like(batch["canvas"])
        return {**batch, "canvas": canvas, "label": batch.get("label"), "frames": [], "settings": {}}


def test_classes_are_named_in_records_and_on_the_sheet(tmp_path):
    def written(**request):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        data = FashionMNISTDataModule("none", size=16, batch_size=2, predict=ImageRequest(num_samples=3, **request))
        run = trainer(folder, callbacks=[PredictionWriter(str(folder / "out"))])
        run.predict(Labelled(), data, return_predictions=False)
        (made,) = (folder / "out").iterdir()
        records = [json.loads(path.read_text()) for path in sorted(made.glob("*.json"))]
        return records, np.asarray(Image.open(made / "sheet.png"))

    records, named = written(labels=[9, 3])
    assert [(record["label"], record["class"]) for record in records] == [
        (9, "ankle boot"),
        (3, "dress"),
        (9, "ankle boot"),
    ]
    renderer, black = ImageRenderer(1, 16), np.zeros((3, 1, 16, 16), np.uint8)
    assert np.array_equal(named, renderer.sheet(black, 10, names=["ankle boot", "dress", "ankle boot"]))
    records, plain = written(unconditional=True)
    assert {record["label"] for record in records} == {None}
    assert "class" not in records[0]
    assert np.array_equal(plain, renderer.sheet(black, 10))


@pytest.mark.parametrize("option", ["wav", "score"])
def test_sound_of_images_is_refused_before_anything_is_sampled(tmp_path, option):
    run = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out"), **{option: True})])
    with pytest.raises(ValueError, match=f"{option}: images have no .*; set {option} to false"):
        run.predict(Labelled(), FashionMNISTDataModule("none", size=16, predict=ImageRequest(num_samples=1)))
    assert not (tmp_path / "out").exists()


class Fixed(type(fractal())):
    """Makes one sample known beforehand, with a number of its own."""

    number, index = 1, 4

    def predict_step(self, batch, batch_idx):
        canvas = torch.from_numpy(roll(self.number))[None, None]
        known, settings = torch.zeros_like(canvas), {"temperature": float("nan")}
        made = {"canvas": canvas, "known": known, "index": torch.tensor([self.index]), "label": torch.tensor([3])}
        return made | {"settings": settings}


def fixed(number, index=4):
    module = fractal()
    module.__class__ = Fixed
    module.number, module.index = number, index
    return module


def run_of(folder, module, data=None, **options):
    """Predict one batch into ``folder / "out"``."""
    run = trainer(folder, callbacks=[PredictionWriter(str(folder / "out"))], limit_predict_batches=1, **options)
    run.predict(module, data or ToyRolls(), return_predictions=False)


def test_files_of_a_few_are_listed_and_replaced_as_a_whole(tmp_path, capsys):
    run_of(tmp_path, fixed(1, index=4))
    left = tmp_path / "out" / f".litscale-{platform.node()}-{'0' * 32}.tmp"  # by a killed process
    left.touch()
    left.with_name(f"{left.name}.d").mkdir()
    run_of(tmp_path, fixed(2, index=5))
    out = capsys.readouterr().out
    assert (out.count("sample_00004.mid"), out.count("sample_00005.mid")) == (1, 1)
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.startswith("toys-untrained-")
    assert sorted(path.name for path in folder.iterdir()) == [f"sample_00005.{kind}" for kind in ("json", "mid", "png")]
    restored = read_midi(folder / "sample_00005.mid", FORM.encoding, phase=0, velocity_bins=3)
    assert (restored.symbols[60:72] == roll(2)).all()
    record = json.loads((folder / "sample_00005.json").read_text())
    assert record["label"] == 3
    assert record["settings"] == {"temperature": None}


def test_different_requests_do_not_mix(tmp_path):
    run_of(tmp_path, fixed(1), ToyRolls(requests=1))
    run_of(tmp_path, fixed(1), ToyRolls(requests=2))
    folders = sorted((tmp_path / "out").iterdir())
    requests = [json.loads((folder / "sample_00004.json").read_text())["request"] for folder in folders]
    assert sorted(request["batches"] for request in requests) == [1, 2]


def test_what_is_written_in_another_way_replaces_nothing(tmp_path):
    for score in (True, False):
        callback = PredictionWriter(str(tmp_path / "out"), score=score)
        trainer(tmp_path, callbacks=[callback], limit_predict_batches=1).predict(fixed(1), ToyRolls())
    folders = sorted((tmp_path / "out").iterdir())
    assert sorted(len(list(folder.glob("*.svg"))) for folder in folders) == [0, 1]


def test_a_checkpoint_is_recorded_with_its_step_and_hash(tmp_path):
    module = fractal()
    module.optimization = Optimization(lr=0.1)
    made = trainer(tmp_path, max_steps=2)
    made.fit(module, ToyRolls())
    path = tmp_path / "some.ckpt"
    made.save_checkpoint(path)
    run = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out"))])
    run.predict(fractal(), ToyRolls(), ckpt_path=path, return_predictions=False)
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.startswith("toys-step_2-")
    record = json.loads((folder / "sample_00000.json").read_text())
    assert (record["checkpoint"], record["step"]) == (str(path.resolve()), 2)
    assert record["sha256"] == sha256(path.read_bytes()).hexdigest()


class Failing(Fixed):
    def predict_step(self, batch, batch_idx):
        if batch_idx:
            raise OSError(28, "No space left on device")
        return super().predict_step(batch, batch_idx)


def test_a_failure_leaves_what_was_there(tmp_path):
    run_of(tmp_path, fixed(1))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    module = fixed(2)
    module.__class__ = Failing
    with pytest.raises(OSError, match="No space"):
        trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out"))]).predict(module, ToyRolls())
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_data_that_cannot_describe_a_request_is_refused(tmp_path):
    class Silent(ToyRolls):
        described_request = None

    with pytest.raises(MisconfigurationException, match="PredictionWriter needs Silent to have `described_request`"):
        run_of(tmp_path, fixed(1), Silent())


def test_a_second_writer_does_not_take_the_frames_of_the_first(tmp_path):
    writers = [PredictionWriter(str(tmp_path / name), gif=name == "animated") for name in ("animated", "still")]
    trainer(tmp_path, callbacks=writers).predict(fractal(), ToyRolls())
    counts = {path.name: len(list(path.glob("*/*.gif"))) for path in (tmp_path / "animated", tmp_path / "still")}
    assert counts == {"animated": 6, "still": 0}


def test_no_frames_to_animate_is_an_error(tmp_path):
    class Still(type(fractal())):
        def predict_step(self, batch, batch_idx):
            return super().predict_step(batch, batch_idx) | {"frames": None}

    module = fractal()
    module.__class__ = Still
    with pytest.raises(ValueError, match=r"gif: Still\.predict_step kept no frames"):
        predict(tmp_path, module, gif=True)
