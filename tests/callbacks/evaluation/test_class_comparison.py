"""Which class samples of a class-conditional model are nearest to, by windows of four kinds."""

import json

import numpy as np
import pytest
import torch
from callback_toys import FORM, STEPS, Drawing, LabelledDrawing, ToyRolls, fractal, trainer
from torch.utils.data import DataLoader

from callbacks import MusicEvaluation
from callbacks.evaluation.class_comparison import ComparedClasses, LabelledWindows, classes_alike, compared_classes

CHECK = {"num_samples": 5, "batch_size": 2, "baselines": False}


def window(kind, number=0, steps=STEPS):
    """A window in quarter notes of two pitches (slow), in sixteenths of eight (fast), of fast thirds, or silent."""
    symbols = np.zeros((FORM.pitches, steps), np.uint8)
    for step in range(steps if kind != "silent" else 0):
        if kind == "slow":
            symbols[5 * (step // 4 % 2) + number % 2, step] = FORM.hold if step % 4 else 1
        else:
            symbols[step % 8 + number % 2, step] = 1
            symbols[step % 8 + number % 2 + 2, step] = 2 if kind == "thirds" else 0
    return symbols


def items(*windows):
    """Windows for a loader, given as pairs of kind and class."""
    return [
        {"canvas": torch.from_numpy(window(kind, number))[None], "label": torch.tensor(label)}
        for number, (kind, label) in enumerate(windows)
    ]


class Styles(ToyRolls):
    """Windows of a slow and a fast class, of unequal sizes, and some without class or without a note."""

    known_class_names = ("slow", "fast")
    windows = (("slow", 0), ("fast", 1), ("thirds", -1), ("slow", 0), ("fast", 1), ("silent", 1), ("slow", 0))

    def __init__(self):
        super().__init__(num_classes=2)

    def rolls(self, split):
        # 4 slow windows, 2 fast ones of the slow class, 6 fast ones
        return iter([window("slow", 0, 70), window("fast", 0, 35), window("fast", 1, 96)])

    def roll_labels(self, split):
        return [0, 0, 1]

    def val_dataloader(self):
        return DataLoader(items(*self.windows), batch_size=3)


class Stylist(LabelledDrawing):
    """Samples of the slow class (even numbers) and of the fast one; some are of another kind, and one is silent."""

    def generate(self, label=None, *, batch_size=1, seed=0, index=None, frames=None):
        kinds = ("slow", "slow", "slow", "silent", "fast")
        return torch.stack([torch.from_numpy(window(kinds[i % 5], i))[None] for i in index.tolist()])


class Unconditional(LabelledDrawing):
    """Reads no labels."""

    def label_classes(self):
        return 0


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_shares_of_samples_and_of_training_windows(tmp_path, capsys, stage):
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    getattr(run, stage)(Stylist(), Styles(), verbose=False)
    assert run.callback_metrics["music/nearest_class"] == pytest.approx(2 / 5)
    # of the slow class the windows 0, 2 or 3 and 5 of six: two slow ones and a fast one
    assert run.callback_metrics["music/training/nearest_class"] == pytest.approx(4 / 5)
    found = json.loads((tmp_path / f"music_{stage}.json").read_text())["nearest_class"]
    slow = {"slow": pytest.approx(2 / 3), "fast": pytest.approx(1 / 3)}
    assert found == {
        "generated": {"nearest_class": 0.4, "shares": {"slow": slow, "fast": {"slow": 0.5, "fast": 0}}},
        "training": {"nearest_class": 0.8, "shares": {"slow": slow, "fast": {"slow": 0, "fast": 1}}},
    }
    markdown = (tmp_path / f"music_{stage}.md").read_text()
    assert "nearest to each class (by chance 50.0%)" in markdown
    assert (
        "| class, windows | slow | fast |\n|---|---|---|\n"
        "| slow, generated | 66.7% | 33.3% |\n| slow, training | 66.7% | 33.3% |\n"
        "| fast, generated | 50.0% | 0.0% |\n| fast, training | 0.0% | 100.0% |"
    ) in markdown
    assert "fast, generated" in capsys.readouterr().out


def test_nothing_in_fit_nor_without_sets(tmp_path):
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    run.fit(Stylist(), Styles())
    assert "music/pitch_range" in run.callback_metrics
    assert not [name for name in run.callback_metrics if "nearest" in name]
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK, sets=False)])
    run.validate(Stylist(), Styles(), verbose=False)
    assert "music/nearest_class" not in run.callback_metrics


@pytest.mark.parametrize(
    ("module", "data"),
    [(LabelledDrawing, ToyRolls), (Drawing, Styles), (Unconditional, Styles), (fractal, ToyRolls)],
    ids=["data without classes", "a module that tells of no labels", "a module without classes", "a real model"],
)
def test_nothing_without_classes(tmp_path, module, data):
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    run.validate(module(), data(), verbose=False)
    assert "music/copies/data/found" in run.callback_metrics
    assert not [name for name in run.callback_metrics if "nearest" in name]
    assert "nearest_class" not in json.loads((tmp_path / "music_validate.json").read_text())
    assert "nearest" not in (tmp_path / "music_validate.md").read_text()


def test_a_real_model_and_classes_without_names(tmp_path):
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    run.validate(fractal(num_classes=2), ToyRolls(num_classes=2), verbose=False)
    assert 0 <= run.callback_metrics["music/nearest_class"] <= 1
    assert "| 1, training |" in (tmp_path / "music_validate.md").read_text()


def test_training_windows_are_left_out_where_their_classes_are_not_known(tmp_path):
    data = Styles()
    data.roll_labels = None
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    run.validate(Stylist(), data, verbose=False)
    assert run.callback_metrics["music/nearest_class"] == pytest.approx(2 / 5)
    assert "music/training/nearest_class" not in run.callback_metrics
    assert ", training |" not in (tmp_path / "music_validate.md").read_text()


def test_a_class_without_windows_is_nearest_to_nothing(tmp_path):
    data = Styles()
    data.num_classes, data.known_class_names = 3, ("slow", "fast", "rare")
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    run.validate(Stylist(), data, verbose=False)
    # slow, fast, rare, slow and fast are asked for; slow, slow, slow, silent and fast windows come
    assert run.callback_metrics["music/nearest_class"] == pytest.approx(2 / 5)
    # the first and the last window of the slow class, of which one is fast, and two of the fast one
    assert run.callback_metrics["music/training/nearest_class"] == pytest.approx(3 / 4)
    markdown = (tmp_path / "music_validate.md").read_text()
    assert "| rare, generated | 100.0% | 0.0% | 0.0% |" in markdown
    assert "rare, training" not in markdown
    assert "The data have no windows of rare, so nothing is nearest to it." in markdown


def test_one_class_is_no_choice(tmp_path):
    data = Styles()
    data.windows = (("slow", 0), ("thirds", -1), ("slow", 0), ("silent", 1))
    run = trainer(tmp_path, callbacks=[MusicEvaluation(**CHECK)])
    run.validate(Stylist(), data, verbose=False)
    assert not [name for name in run.callback_metrics if "nearest" in name]
    assert "nearest" not in (tmp_path / "music_validate.md").read_text()


def test_windows_without_class_do_not_move_the_means():
    def labelled(*windows):
        return LabelledWindows(
            np.stack([window(kind, number) for number, (kind, _) in enumerate(windows)]),
            np.array([label for _, label in windows]),
        )

    none = LabelledWindows(np.zeros((0, FORM.pitches, STEPS), np.uint8), np.zeros(0, np.int64))
    found = compared_classes(
        labelled(("thirds", 1), ("slow", 0)), labelled(*Styles.windows), none, FORM, ["slow", "fast"]
    )
    assert found == ComparedClasses(
        ["slow", "fast"],
        {"generated": {"slow": {"slow": 1, "fast": 0}, "fast": {"slow": 0, "fast": 1}}},
        {"generated": 1},
    )


def test_as_many_of_each_class_evenly_spread():
    others = np.array([1, 0, 0, 1, -1, 0, 0, 0, 3, 1])
    assert classes_alike(np.array([0, 1, 0, 2, 1, 0, 1, 1, -1]), others).tolist() == [1, 5, 7, 0, 3, 9]
    assert classes_alike(np.array([0]), np.zeros(0, int)).tolist() == []
