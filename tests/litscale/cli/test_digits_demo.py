"""What `make demo-images` shows holds: MAR beside AR, both beside independent pixels, digits that are recognised."""

import json
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[3] / "configs" / "digits"


def scores_of(litscale, config, folder):
    """What ``litscale test`` finds of a config after ``litscale fit``."""
    common = ["--config", config, "--trainer.default_root_dir", folder]
    litscale("fit", *common, "--trainer.enable_progress_bar", "false", timeout=1200)
    litscale("test", *common, "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    (scores,) = folder.glob("scores_test_*.json")
    return json.loads(scores.read_text())["scores"]


@pytest.mark.slow
def test_mar_and_ar_learn_digits(litscale, tmp_path):
    scores = {kind: scores_of(litscale, CONFIGS / f"fractal_{kind}.yaml", tmp_path / kind) for kind in ("mar", "ar")}
    bits = {kind: score["test/bits_per_dim"] for kind, score in scores.items()}
    assert bits["mar"] < 1.15 * bits["ar"]
    assert bits["ar"] < 1.15 * bits["mar"]
    for score in scores.values():
        assert score["test/bits_per_dim"] < 0.85 * score["test/bits_per_dim/independent_pixels"]
        assert score["test/bits_per_dim"] < score["test/bits_per_dim_unconditional"]  # a label is worth something
        assert score["test/class_accuracy"] >= 0.8
