"""What a training step reports, on dashboards."""

import pytest
from callback_toys import TwoLevels, pairs, trainer
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import LevelLosses

DATA = [(1.0, 0.0), (2.0, 0.0), (4.0, 0.0), (8.0, 0.0), (16.0, 0.0)]


def rows(logger: CSVLogger, key: str) -> dict[int, float]:
    """Step -> value."""
    return {row["step"]: row[key] for row in logger.experiment.metrics if key in row}


def fit(tmp_path, **options):
    logger = CSVLogger(tmp_path)
    logger.save = lambda: None  # which would empty what is read below
    trainer(tmp_path, callbacks=[LevelLosses()], logger=logger, **options).fit(TwoLevels(), pairs(*DATA))
    return logger


def test_each_step_logs_its_own_report(tmp_path):
    logger = fit(tmp_path)
    assert rows(logger, "train/mask_fraction/level_0") == {0: 1, 1: 2, 2: 4, 3: 8, 4: 16}
    assert rows(logger, "train/loss/leaf") == {0: 3, 1: 6, 2: 12, 3: 24, 4: 48}
    assert rows(logger, "train/entropy")[1] == 7


def test_only_logging_steps_log(tmp_path):
    logger = fit(tmp_path, log_every_n_steps=2, max_steps=4)
    assert rows(logger, "train/loss/level_1") == {1: 2, 3: 8}


def test_accumulated_batches_are_averaged(tmp_path):
    logger = fit(tmp_path, accumulate_grad_batches=2)
    # The last batch of the epoch is a step of its own; the entropy, measured in one batch of the two, is not halved.
    assert rows(logger, "train/mask_fraction/level_0") == {0: 1.5, 1: 6, 2: 16}
    assert rows(logger, "train/entropy")[0] == 7


def test_a_module_without_report_is_an_error(tmp_path):
    class Silent(TwoLevels):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    with pytest.raises(MisconfigurationException, match=r"Silent\.training_step to return a dict with 'report'"):
        trainer(tmp_path, callbacks=[LevelLosses()]).fit(Silent(), pairs(*DATA))


def test_a_skipped_batch_counts_for_nothing(tmp_path):
    class Skips(TwoLevels):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    module: LightningModule = Skips()
    run = trainer(tmp_path, callbacks=[LevelLosses()], limit_train_batches=2, accumulate_grad_batches=2)
    run.fit(module, pairs(*DATA))
    assert run.callback_metrics["train/mask_fraction/level_0"] == 1
