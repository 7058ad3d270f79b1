"""Generated music beside the data, on dashboards and as a table."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from callback_toys import FORM, STEPS, Drawing, ToyRolls, TwoLevels, Windows, drawn, fractal, roll, trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from callbacks import MusicEvaluation
from callbacks.evaluation.likelihood_baselines import LikelihoodBaselines
from callbacks.evaluation.set_comparison import ComparedSets, copied
from callbacks.music_evaluation import music_report
from litscale.music import IndependentPitches, RepeatOrRedraw, RollRenderer, set_distances, statistics
from litscale.music.roll import Roll

WINDOWS = [roll(index) for index in range(len(Windows()))]
TRAINING = [roll(100 + number, 64) for number in range(3)]


def mean(name, rolls):
    return np.mean([statistics(Roll(symbols, FORM))[name] for symbols in rolls])


def test_values(tmp_path):
    module, data = Drawing(), ToyRolls()
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=5, batch_size=2, seed=7)])
    run.validate(module, data, verbose=False)
    assert module.asked == [(7, [0, 1]), (7, [2, 3]), (7, [4])]
    samples = [drawn(7, i) for i in range(5)]
    values = run.callback_metrics
    for name in ("pitch_class_entropy", "pitch_range", "mean_velocity"):
        own, other = mean(name, samples), mean(name, WINDOWS)
        assert values[f"music/{name}"] == pytest.approx(own, rel=1e-5)
        assert values[f"music/ratio/{name}"] == pytest.approx(own / other, rel=1e-5)
    assert values["music/histogram_overlap/note_density"] == 1
    own, other = (
        [statistics(Roll(symbols, FORM))["pitch_class_entropy"] for symbols in rolls] for rolls in (samples, WINDOWS)
    )
    edges = np.linspace(min(own + other), max(own + other), 21)
    shares = [np.histogram(found, edges)[0] / len(found) for found in (own, other)]
    assert 0 < np.minimum(*shares).sum() < 1
    assert values["music/histogram_overlap/pitch_class_entropy"] == pytest.approx(np.minimum(*shares).sum(), rel=1e-5)
    for name, kind in (("independent_pitches", IndependentPitches), ("repeat_or_redraw", RepeatOrRedraw)):
        model = kind.fit(TRAINING, FORM.alphabet, FORM.hold)
        expected = sum(model.nats(window) for window in WINDOWS) / (len(WINDOWS) * STEPS)
        assert values[f"val/nats_per_step/{name}"] == pytest.approx(expected, rel=1e-5)


def test_baselines_are_of_the_steps_that_count_for_the_model(tmp_path):
    """They look one step back, so windows with context give the nats of the whole piece."""
    piece, half = roll(200, 3 * STEPS), STEPS // 2
    items = [
        {
            "canvas": torch.from_numpy(piece[:, start : start + STEPS].copy())[None],
            "counted": torch.arange(STEPS) >= (half if start else 0),
            "side_by_side": torch.tensor(start % STEPS == 0),
        }
        for start in range(0, 2 * STEPS + 1, half)
    ]
    data = ToyRolls()
    data.val_dataloader = lambda: DataLoader(items, batch_size=2)
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=2)])
    run.validate(Drawing(), data, verbose=False)
    for name, kind in (("independent_pitches", IndependentPitches), ("repeat_or_redraw", RepeatOrRedraw)):
        expected = kind.fit(TRAINING, FORM.alphabet, FORM.hold).nats_per_step(piece)
        assert run.callback_metrics[f"val/nats_per_step/{name}"] == pytest.approx(expected, rel=1e-5)
    assert json.loads((tmp_path / "music_validate.json").read_text())["windows"] == 3


def test_what_the_data_does_not_define_is_left_out(tmp_path):
    data = ToyRolls()
    data.renderer = RollRenderer(FORM, beats_per_bar=5)  # windows of less than a bar have no groove
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=1, baselines=False)])
    run.validate(Drawing(), data, verbose=False)
    assert "music/polyphony" in run.callback_metrics
    assert not [key for key in run.callback_metrics if "groove" in key or "redraw" in key]


def test_what_silent_samples_do_not_define_is_left_out_of_an_evaluation(tmp_path):
    class Silent(Drawing):
        def generate(self, label=None, *, batch_size=1, **_):
            return torch.zeros(batch_size, 1, FORM.pitches, STEPS, dtype=torch.uint8)

    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=2, baselines=False)])
    run.validate(Silent(), ToyRolls(), verbose=False)
    assert run.callback_metrics["music/note_density"] == 0
    assert not [name for name in run.callback_metrics if "mean_velocity" in name]
    assert all(value.isfinite() for value in run.callback_metrics.values())
    run.fit(Silent(), ToyRolls())
    assert run.callback_metrics["music/mean_velocity"].isnan()


def test_windows_are_measured_in_the_meter_of_their_piece(tmp_path):
    items = [
        {**Windows()[index], "beats_per_bar": torch.tensor([1.0, 2.0][index % 2])} for index in range(len(Windows()))
    ]
    data = ToyRolls()
    data.val_dataloader = lambda: DataLoader(items, batch_size=4)
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=2, baselines=False)])
    run.validate(Drawing(), data, verbose=False)
    found = json.loads((tmp_path / "music_validate.json").read_text())["statistics"]["groove_consistency"]
    grooves = [
        statistics(Roll(window, FORM.with_meter(1 + index % 2)))["groove_consistency"]
        for index, window in enumerate(WINDOWS)
    ]
    assert found["data"] == pytest.approx(np.mean(grooves), rel=1e-5)
    assert found["data"] != pytest.approx(np.mean([statistics(Roll(w, FORM))["groove_consistency"] for w in WINDOWS]))


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_table(tmp_path, capsys, stage):
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=2)], logger=CSVLogger(tmp_path, "run", 1))
    getattr(run, stage)(Drawing(), ToyRolls(), verbose=False)
    found = json.loads((tmp_path / f"music_{stage}.json").read_text())
    assert (found["stage"], found["samples"], found["windows"]) == (stage, 2, 6)
    assert found["nats_per_step"]["model"] == {"validate": 2.5, "test": 3.5}[stage]
    assert found["nats_per_step"]["repeat_or_redraw"] > 0
    assert found["statistics"]["pitch_range"]["data"] == pytest.approx(mean("pitch_range", WINDOWS), rel=1e-5)
    markdown = (tmp_path / f"music_{stage}.md").read_text()
    row = found["statistics"]["pitch_range"]
    texts = [f"{row[kind]:.4g}" for kind in ("generated", "data", "ratio", "histogram_overlap")]
    assert f"| pitch_range | {' | '.join(texts)} |" in markdown
    out = capsys.readouterr().out
    assert "repeat or redraw" in out
    assert "pitch_class_entropy" in out


class Copying(Drawing):
    """Each third sample is a part of a training piece."""

    def generate(self, label=None, *, batch_size=1, seed=0, index=None, frames=None):
        canvas = super().generate(label, batch_size=batch_size, seed=seed, index=index, frames=frames)
        for row, number in enumerate(index.tolist()):
            if number % 3 == 1:
                canvas[row, 0] = torch.from_numpy(TRAINING[1][:, 8 : 8 + STEPS].copy())
        return canvas


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_sets_are_compared_outside_of_fit(tmp_path, stage, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=5, batch_size=2, baselines=False)])
    getattr(run, stage)(Copying(), ToyRolls(), verbose=False)
    part = TRAINING[1][:, 8 : 8 + STEPS]
    samples = [part if number % 3 == 1 else drawn(0, number) for number in range(5)]
    # 12 windows of the training side by side, of which five are taken
    windows = [piece[:, start : start + STEPS] for piece in TRAINING for start in range(0, 64, STEPS)]
    known = [windows[number] for number in (0, 3, 6, 8, 11)]
    values = run.callback_metrics
    report = json.loads((tmp_path / f"music_{stage}.json").read_text())
    for prefix, name, rolls in (("", "generated", samples), ("training/", "training", known)):
        ours, theirs = ([Roll(symbols, FORM) for symbols in part] for part in (rolls, WINDOWS))
        for feature, row in set_distances(ours, theirs).items():
            for kind in ("overlapping_area", "kl_divergence"):
                logged = values.get(f"music/{prefix}{kind}/{feature}", torch.tensor(float("nan")))
                assert logged.item() == pytest.approx(row[kind], rel=1e-5, nan_ok=True)
            assert report["set_distances"][name][feature]["intra_mean"] == pytest.approx(row["intra_mean"])
    copies = report["copies"]["generated"]
    assert values["music/copies/generated/found"] == pytest.approx(2 / 5)
    assert values["music/copies/generated/longest_run_max"] == copies["longest_run_max"] == STEPS
    assert values["music/copies/data/found"] == 0
    assert 1 <= values["music/copies/data/longest_run"] <= values["music/copies/data/longest_run_max"] < STEPS
    assert values["music/copies/generated/longest_run"] > values["music/copies/data/longest_run"]
    markdown = (tmp_path / f"music_{stage}.md").read_text()
    assert "| generated | " in markdown
    assert "| 40.0% |" in markdown
    assert "overlapping area of training windows | KL divergence of training windows |" in markdown
    assert "overlapping area" in capsys.readouterr().out


def test_too_few_windows_or_notes_have_no_distances(tmp_path):
    class Silent(Drawing):
        def generate(self, label=None, *, batch_size=1, **_):
            return torch.zeros(batch_size, 1, FORM.pitches, STEPS, dtype=torch.uint8)

    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=4, baselines=False)])
    run.validate(Silent(), ToyRolls(), verbose=False)
    assert not [name for name in run.callback_metrics if "overlapping" in name]
    assert json.loads((tmp_path / "music_validate.json").read_text())["set_distances"]["generated"] == {}
    assert "4 windows have fewer than 2 notes" in (tmp_path / "music_validate.md").read_text()
    assert "at least 3 samples" in (tmp_path / "music_validate.md").read_text()
    assert copied(np.zeros((0, 12, 4), np.uint8), TRAINING) == {}


def test_without_sets_no_training_piece_is_read(tmp_path):
    data = ToyRolls()
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=4, baselines=False, sets=False)])
    run.validate(Drawing(), data, verbose=False)
    assert data.fits == 0
    assert "copies" not in json.loads((tmp_path / "music_validate.json").read_text())
    assert "Distances" not in (tmp_path / "music_validate.md").read_text()


def test_the_learned_distance_is_asked_for_by_its_weights(tmp_path, monkeypatch):
    seen = []

    class Stub:
        def __init__(self, weights):
            assert weights == "clamp.pth"

        def __call__(self, generated, data):
            seen.append((len(generated), len(data)))
            return 12.5

    monkeypatch.setattr("callbacks.evaluation.set_comparison.FrechetMusicDistance", Stub)
    callback = MusicEvaluation(num_samples=4, baselines=False, clamp_weights="clamp.pth")
    run = trainer(tmp_path, callbacks=[callback])
    run.validate(Drawing(), ToyRolls(), verbose=False)
    assert seen == [(4, 6)]
    assert run.callback_metrics["music/frechet_music_distance"] == 12.5
    assert "| CLaMP 2 | 12.5 |" in (tmp_path / "music_validate.md").read_text()
    with pytest.raises(ValueError, match="set the option sets to true"):
        MusicEvaluation(sets=False, clamp_weights="clamp.pth")


def test_zero_leaves_the_evaluation_to_validate(tmp_path):
    module, callback = Drawing(), MusicEvaluation(num_samples=2, every_n_validations=0)
    trainer(tmp_path, callbacks=[callback]).fit(module, ToyRolls())
    assert module.asked == []
    trainer(tmp_path, callbacks=[callback]).validate(module, ToyRolls(), verbose=False)
    assert module.asked == [(0, [0, 1])]


def test_in_fit_data_is_measured_once_and_no_table_is_shown(tmp_path, capsys):
    module, data, logger = Drawing(), ToyRolls(), CSVLogger(tmp_path)
    logger.save = lambda: None  # which would empty what is read below
    callback = MusicEvaluation(num_samples=2, every_n_validations=2)
    run = trainer(tmp_path, callbacks=[callback], max_epochs=3, num_sanity_val_steps=1, logger=logger)
    run.fit(module, data)
    assert module.asked == [(0, [0, 1])] * 2  # epochs 1 and 3, not the sanity check
    assert data.fits == 1
    logged = [row for row in logger.experiment.metrics if "music/pitch_range" in row]
    assert [row["epoch"] for row in logged] == [0, 2]
    assert logged[0]["val/nats_per_step/repeat_or_redraw"] == logged[1]["val/nats_per_step/repeat_or_redraw"]
    assert logged[0]["music/ratio/pitch_range"] == logged[1]["music/ratio/pitch_range"]
    assert "overlap" not in capsys.readouterr().out
    assert not list(tmp_path.rglob("music_*"))


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_evaluated_in_any_order(tmp_path, first):
    module, averaging = Drawing(), EMAWeightAveraging(decay=0.5, use_buffers=False)
    callbacks = [MusicEvaluation(num_samples=1, baselines=False), averaging]
    run = trainer(tmp_path, callbacks=callbacks if first else callbacks[::-1])
    run.fit(module, ToyRolls())
    assert torch.equal(module.weights[0], averaging._average_model.module.first.weight)
    assert module.weights[0].tolist() != [[1, 1]]


def test_classes_take_turns_over_batches(tmp_path):
    module = Drawing()
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=5, batch_size=3, baselines=False)])
    run.validate(module, ToyRolls(num_classes=2), verbose=False)
    assert [label.tolist() for label in module.labels] == [[0, 1, 0], [1, 0]]


def test_a_real_model(tmp_path):
    run = trainer(tmp_path, callbacks=[MusicEvaluation(num_samples=2)])
    run.validate(fractal(num_classes=2), ToyRolls(num_classes=2), verbose=False)
    assert run.callback_metrics["music/note_density"] > 0
    found = json.loads((tmp_path / "music_validate.json").read_text())
    assert found["nats_per_step"]["model"] == pytest.approx(run.callback_metrics["val/nats_per_step"].item())


def test_undefined_numbers_are_null_and_dashes(tmp_path):
    row = {"generated": float("nan"), "data": 1.0, "ratio": float("nan"), "histogram_overlap": float("nan")}
    report = music_report(
        "test", "last.ckpt", samples=1, windows=1, nats_per_step={}, statistics={"polyphony": row}, sets=ComparedSets()
    )
    json_file, markdown = report.write(tmp_path / "new")
    assert json.loads(json_file.read_text())["statistics"]["polyphony"]["ratio"] is None
    assert "| polyphony | - | 1 | - | - |" in markdown.read_text()
    assert "last.ckpt" in markdown.read_text()


def test_what_it_needs_is_named(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        MusicEvaluation(num_samples=0)
    with pytest.raises(MisconfigurationException, match="set the option baselines to false"):
        LikelihoodBaselines(SimpleNamespace(datamodule=object()), FORM)
    with pytest.raises(MisconfigurationException, match="TwoLevels to have `generate`"):
        MusicEvaluation().setup(SimpleNamespace(datamodule=ToyRolls()), TwoLevels(), "fit")
