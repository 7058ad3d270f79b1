"""Scores over the steps."""

import json

import pytest
from PIL import Image

from litscale.cli.evaluate.folder import Evaluated
from litscale.cli.evaluate.table import write_tables


@pytest.fixture
def evaluated():
    """Three steps; not each has each score, and one is not finite."""
    scores = {
        50: {"val/fid": 31.5, "val/recall": 0.2, "music/polyphony": 2.0},
        100: {"val/fid": 12.25, "val/recall": 0.5, "music/polyphony": 3.0},
        1000: {"val/fid": None, "val/recall": 0.4},
    }
    return {
        step: Evaluated(step=step, checkpoint=f"/run/{step}.ckpt", checksum=None, weights="w", time="now", scores=each)
        for step, each in scores.items()
    }


def test_tables_picture_and_marks(tmp_path, evaluated):
    write_tables(tmp_path, evaluated, {"music/polyphony": "max"})
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "step,val/fid,val/recall,music/polyphony,checkpoint",
        "50,31.5,0.2,2.0,50.ckpt",
        "100,12.25,0.5,3.0,100.ckpt",
        "1000,,0.4,,1000.ckpt",
    ]
    text = (tmp_path / "scores.md").read_text()
    assert "The best: val/fid at step 100, val/recall at step 100, music/polyphony at step 100." in text
    assert "| 1000 | not finite | 0.4 | not finite | 1000.ckpt |" in text
    assert Image.open(tmp_path / "scores.png").size == (1440, 312)  # three panels in a row
    marks = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("best_by_*.json")}
    fid = {"metric": "val/fid", "mode": "min", "value": 12.25, "step": 100, "checkpoint": "/run/100.ckpt"}
    assert marks.pop("best_by_val_fid.json") == fid
    assert {name: (mark["mode"], mark["step"]) for name, mark in marks.items()} == {
        "best_by_val_recall.json": ("max", 100),
        "best_by_music_polyphony.json": ("max", 100),
    }


def test_nobody_knows_which_of_other_scores_is_better(tmp_path, evaluated):
    write_tables(tmp_path, {50: evaluated[50]}, {"val/fid": "max"}, ", 3 of the batches")
    assert (tmp_path / "scores.md").read_text().startswith("# Scores over steps, 3 of the batches\n")
    assert not (tmp_path / "best_by_music_polyphony.json").exists()
    assert json.loads((tmp_path / "best_by_val_fid.json").read_text())["mode"] == "max"
