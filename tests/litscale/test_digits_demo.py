"""What `make demo-images` shows holds: MAR beside AR, both beside independent pixels, digits that are recognised."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from litscale.cli import main

CONFIGS = Path(__file__).parents[2] / "configs" / "digits"


@pytest.fixture
def tested(monkeypatch):
    """What ``litscale test`` finds of a config after ``litscale fit``."""
    found = {}
    plain = Trainer.test

    def test(self, *args, **options):
        found.update(plain(self, *args, **options)[0])

    monkeypatch.setattr(Trainer, "test", test)

    def run(config, folder):
        common = ["--config", str(config), "--trainer.default_root_dir", str(folder)]
        main(["fit", *common, "--trainer.enable_progress_bar", "false"])
        main(["test", *common, "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")])
        return dict(found)

    return run


@pytest.mark.slow
def test_mar_and_ar_learn_digits(tested, tmp_path):
    scores = {kind: tested(CONFIGS / f"fractal_{kind}.yaml", tmp_path / kind) for kind in ("mar", "ar")}
    bits = {kind: score["test/bits_per_dim"] for kind, score in scores.items()}
    assert bits["mar"] < 1.15 * bits["ar"]
    assert bits["ar"] < 1.15 * bits["mar"]
    for score in scores.values():
        assert score["test/bits_per_dim"] < 0.85 * score["test/bits_per_dim/independent_pixels"]
        assert score["test/bits_per_dim"] < score["test/bits_per_dim_unconditional"]  # a label is worth something
        assert score["test/class_accuracy"] >= 0.8
