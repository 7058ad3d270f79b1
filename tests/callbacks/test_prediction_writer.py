"""Samples of predict as files."""

import json

import pytest
import torch
from callback_toys import FORM, Requests, ToyRolls, fractal, roll, trainer
from PIL import Image

from callbacks import PredictionWriter
from music import MidiError, RollRenderer, read_midi


def predict(folder, module=None, **options):
    callback = PredictionWriter(str(folder / "out"), **options)
    run = trainer(folder, callbacks=[callback])
    canvases = run.predict(module or fractal(), ToyRolls())
    return folder / "out", torch.cat([batch["canvas"] for batch in canvases])


def test_each_sample_has_its_files(tmp_path, capsys):
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
        assert record["checkpoint"] is None
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


def test_animations_and_sounds(tmp_path):
    module = fractal()
    folder, _ = predict(tmp_path, module, gif=True, wav=True)
    assert module.record_frames
    assert sum(path.suffix == ".wav" for path in folder.iterdir()) == 6
    # The first level has four patches, of which three have a cell to make and one is half known: four steps.
    assert Image.open(folder / "sample_00003.gif").n_frames == 4


def test_files_of_a_few_are_listed_and_overwritten(tmp_path, capsys):
    class Fixed(type(fractal())):
        def predict_step(self, batch, batch_idx):
            canvas = torch.from_numpy(roll(self.number))[None, None]
            index = torch.tensor([4])
            known, settings = torch.zeros_like(canvas), {"temperature": float("nan")}
            label = torch.tensor([3])
            return {"canvas": canvas, "known": known, "index": index, "label": label, "settings": settings}

    for number in (1, 2):
        module = fractal()
        module.__class__ = Fixed
        module.number = number
        run = trainer(tmp_path, callbacks=[PredictionWriter(str(tmp_path / "out"))], limit_predict_batches=1)
        run.predict(module, ToyRolls(), return_predictions=False)
    out = capsys.readouterr().out
    assert out.count("sample_00004.mid") == 2
    restored = read_midi(tmp_path / "out" / "sample_00004.mid", FORM.encoding, phase=0, velocity_bins=3)
    assert (restored.symbols[60:72] == roll(2)).all()
    record = json.loads((tmp_path / "out" / "sample_00004.json").read_text())
    assert record["label"] == 3
    assert record["settings"] == {"temperature": None}


def test_no_frames_to_animate_is_an_error(tmp_path):
    class Still(type(fractal())):
        def predict_step(self, batch, batch_idx):
            return super().predict_step(batch, batch_idx) | {"frames": None}

    module = fractal()
    module.__class__ = Still
    with pytest.raises(ValueError, match=r"gif: Still\.predict_step kept no frames"):
        predict(tmp_path, module, gif=True)
