"""The models that come with litscale: chorales, a pair of VARs of Fashion-MNIST, and the JSB benchmark."""

import json
import re
import wave

import numpy as np
import pytest
import torch

from lit_models import LitFractal, LitSDVAR
from litscale.cli.main import main
from litscale.models.sdvar import Coupled, Speculative
from litscale.music import Roll, RollFormat, read_midi, write_midi
from litscale.storage.exported import SHIPPED

BACH, FASHION, JSB = (SHIPPED / name for name in ("bach", "fashion", "jsb"))
FORM = {"encoding": "onset_hold", "velocity_bins": 1, "phase": 0}


@pytest.mark.parametrize(
    ("folder", "kind", "logged"), [(BACH, LitFractal, 50), (FASHION, LitSDVAR, 5), (JSB, LitFractal, 50)]
)
def test_they_are_small_and_complete(folder, kind, logged):
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.yaml", "model.safetensors", "training.csv"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    module = kind.from_pretrained(folder.name)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    assert not re.search(r"(?<!T-shirt)/", (folder / "config.yaml").read_text())  # no folder of the machine
    lines = (folder / "training.csv").read_text().splitlines()
    assert lines[0].startswith("step,")
    assert len(lines) > logged


def predict(folder, *words):
    """Run the command of ``make music`` for one short piece."""
    options = ["--data.predict.num_samples", "1", "--trainer.default_root_dir", str(folder)]
    main(["predict", "--model.pretrained", "bach", "--config", "music.yaml", *options, *words])
    (made,) = (folder / "predictions").iterdir()
    return made


def test_new_pieces_are_written_as_notes_score_and_sound(tmp_path):
    folder = predict(tmp_path, "--data.predict.length", "32")
    kinds = ("json", "mid", "png", "svg", "wav")
    assert sorted(path.name for path in folder.iterdir()) == [f"sample_00000.{kind}" for kind in kinds]
    with wave.open(str(folder / "sample_00000.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    assert 0.05 < np.abs(sound).max() < 0.95
    assert (np.abs(sound) > 0.01).mean() > 0.5
    statistics = json.loads((folder / "sample_00000.json").read_text())["statistics"]
    assert statistics["scale_consistency"] > 0.65  # chance is 7/12
    assert statistics["polyphony"] == pytest.approx(4, abs=1)


def test_a_file_is_continued_and_filled_in(tmp_path):
    symbols = np.zeros((128, 48), np.uint8)
    for pitch in (48, 55, 64, 72):
        symbols[pitch, 0::8], symbols[pitch, 1::2] = 1, 2
        symbols[pitch, 2::2] = np.where(symbols[pitch, 2::2] == 0, 2, symbols[pitch, 2::2])
    roll = Roll(symbols, RollFormat("onset_hold", velocity_bins=1))
    song = write_midi(roll, tmp_path / "song.mid")
    words = ["--data.predict.prefix", str(song), "--data.predict.prefix_steps", "32", "--data.predict.length", "48"]
    continued = read_midi(predict(tmp_path / "continued", *words) / "sample_00000.mid", **FORM).symbols
    assert np.array_equal(continued[:, :32], symbols[:, :32])
    assert not np.array_equal(continued[:, 32:48], symbols[:, 32:48])
    words = ["--data.predict.inpaint", str(song), "--data.predict.region", "[16,32]"]
    words += ["--data.predict.length", "48"]
    filled = read_midi(predict(tmp_path / "filled", *words) / "sample_00000.mid", **FORM).symbols
    assert np.array_equal(filled[:, :16], symbols[:, :16])
    assert np.array_equal(filled[:, 33:48], symbols[:, 33:48])  # a held note may become one that begins here
    assert not np.array_equal(filled[:, 16:32], symbols[:, 16:32])


def test_the_model_of_the_benchmark_scores_a_file(tmp_path):
    chords = [48, 55, 64, 72], [53, 57, 65, 72], [43, 55, 62, 71], [48, 55, 64, 72]
    held = [chord for chord in chords for _ in range(8)] * 4
    noise = np.random.default_rng(0).integers(40, 80, (128, 4)).tolist()
    scores = {}
    for name, piece in (("held", held), ("noise", noise)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"train": [held], "valid": [piece]}))
        place = ["--data.source.path", str(path), "--trainer.default_root_dir", str(tmp_path / name)]
        main(["validate", "--model.pretrained", "jsb", *place])
        (written,) = (tmp_path / name).glob("scores_validate_*.json")
        scores[name] = json.loads(written.read_text())["scores"]
    assert scores["held"]["val/nats_per_step"] < 4  # unigrams of the benchmark have 11.4
    assert scores["noise"]["val/nats_per_step"] > 20
    assert scores["held"]["val/nats_per_slot"] == pytest.approx(scores["held"]["val/nats_per_step"] / 4)


def test_the_pair_makes_the_images_of_its_target_in_fewer_calls():
    module = LitSDVAR.from_pretrained("fashion")
    labels = torch.arange(10)
    alone = module.decode(module.target_only, module.generation, labels, None, seed=0)
    lossless = Speculative(module.draft, module.target, gamma=3, acceptance=Coupled())
    coupled = module.decode(lossless, module.generation, labels, None, seed=0)
    assert all(torch.equal(*tokens) for tokens in zip(coupled.tokens, alone.tokens, strict=True))
    assert coupled.report.target_calls < alone.report.target_calls
    assert 0.1 < alone.images.mean() < 0.5  # light clothes on black
    assert alone.images.std() > 0.2


def test_the_table_of_decoders_needs_no_data(tmp_path, capsys):
    few = ["--num_images", "2", "--batch_size", "2", "--seeds", "1", "--repeats", "1", "--speed_batches", "[1]"]
    rows = ["--gammas", "[3]", "--acceptances", "[KL]", "--large_scales", "[4]", "--entry_nums", "[2]"]
    place = ["--trainer.default_root_dir", str(tmp_path)]
    main(["bench", "decode", "--model.pretrained", "fashion", *place, *few, *rows])
    table = json.loads((tmp_path / "bench_decode.json").read_text())["rows"]
    assert table["target only"]["target_calls_per_image"] == 8
    refined = table["refine (large_scales 4)"]
    assert (refined["target_calls_per_image"], refined["draft_calls_per_image"]) == (4, 4)
    assert "target only" in capsys.readouterr().out


def test_costs_of_the_pair_need_no_weights(tmp_path):
    place = ["--trainer.default_root_dir", str(tmp_path)]
    main(["bench", "costs", "--model.pretrained", "fashion", "--repeats", "1", *place])
    assert len(json.loads((tmp_path / "bench_costs.json").read_text())["gammas"]) == 8
    main(["bench", "masks", "--model.pretrained", "fashion", *place])
    assert (tmp_path / "masks.png").is_file()


def test_predict_writes_samples_without_being_told(tmp_path):
    words = ["predict", "--model.pretrained", "fashion", "--data.predict.num_samples", "1"]
    main([*words, "--trainer.default_root_dir", str(tmp_path)])
    assert len(list(tmp_path.glob("predictions/*/sample_00000.png"))) == 1
