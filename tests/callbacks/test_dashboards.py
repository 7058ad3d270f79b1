"""All callbacks in one training run: the names that dashboards see, read back from an offline W&B run."""

import pytest
from callback_toys import Drawing, ToyRolls, trainer
from lightning.pytorch.loggers import WandbLogger
from wandb_files import offline_history

from callbacks import GradientNorms, LevelLosses, MusicEvaluation, Samples


def test_wandb_has_all_names_and_values(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="toys", save_dir=tmp_path, offline=True)
    callbacks = [LevelLosses(), GradientNorms(), Samples(num_samples=1), MusicEvaluation(num_samples=2)]
    run = trainer(tmp_path, callbacks=callbacks, logger=logger)
    run.fit(Drawing(), ToyRolls())
    wandb.finish()
    rows = offline_history(tmp_path)
    steps = [row for row in rows if "train/loss/leaf" in row]
    assert [row["trainer/global_step"] for row in steps] == [0, 1, 2]
    # Rows are (1, 1), weights start at 1 and fall by the learning rate 0.1 times their gradient.
    assert [row["train/loss/level_1"] for row in steps] == pytest.approx([2, 1.8, 1.6])
    assert [row["train/loss/leaf"] for row in steps] == pytest.approx([6, 4.2, 2.4])
    assert [row["grad_norm/level_0"] for row in steps] == pytest.approx([2**0.5] * 3)
    assert [row["grad_norm/total"] for row in steps] == pytest.approx([20**0.5] * 3)
    (music,) = (row for row in rows if "music/pitch_range" in row)
    for name in ("music/ratio/pitch_range", "music/histogram_overlap/pitch_range"):
        assert music[name] == pytest.approx(run.callback_metrics[name].item())
    assert music["val/nats_per_step/repeat_or_redraw"] < music["val/nats_per_step/independent_pitches"]
    (pictures,) = (row for row in rows if "samples/picture/count" in row)
    assert (pictures["samples/picture/count"], pictures["trainer/global_step"]) == (1, 3)
    assert (tmp_path / "samples" / "step_3" / "sample_00000.mid").is_file()
