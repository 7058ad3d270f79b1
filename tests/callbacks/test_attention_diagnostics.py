"""Attention of each head, as numbers and as a picture."""

import numpy as np
import pytest
import torch
from callback_toys import Drawing, ToyRolls, TwoLevels, fractal, trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import AttentionDiagnostics
from callbacks.attention_diagnostics import heatmaps
from callbacks.reporting.figures import pixels
from litscale.models.fractal import LevelAttention


def test_numbers_and_picture(tmp_path):
    module, logger = fractal(), TensorBoardLogger(tmp_path)
    given = []

    def report(canvas, label=None):
        given.append(canvas)
        values = torch.arange(8.0).view(2, 4)
        return {"level_0": LevelAttention(values, values + 10), "level_1": LevelAttention(values[:1], values[:1])}

    module.attention_report = report
    run = trainer(tmp_path, callbacks=[AttentionDiagnostics(num_canvases=1, scalars=True)], logger=logger)
    run.validate(module, ToyRolls(), verbose=False)
    first = next(iter(ToyRolls().val_dataloader()))["canvas"][:1]
    assert len(given) == 1
    assert torch.equal(given[0], first)
    events = EventAccumulator(logger.log_dir).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("attention/")]
    assert len(tags) == 2 * (8 + 4)
    (event,) = events.Scalars("attention/entropy/level_0/block_1/head_2")
    assert event.value == 6
    (event,) = events.Scalars("attention/reach/level_0/block_1/head_2")
    assert event.value == 16
    (image,) = events.Images("attention/heads/0")
    with Image.open(tmp_path / "attention" / "validate.png") as picture:
        assert picture.size == (image.width, image.height)


def test_every_second_validation(tmp_path):
    module, logger = Drawing(), TensorBoardLogger(tmp_path)
    module.attention_report = lambda canvas, label=None: {"level_0": LevelAttention(torch.eye(1), torch.eye(1))}
    callbacks = [AttentionDiagnostics(every_n_validations=2, scalars=True)]
    run = trainer(tmp_path, callbacks=callbacks, logger=logger, max_epochs=3, num_sanity_val_steps=1)
    run.fit(module, ToyRolls())
    events = EventAccumulator(logger.log_dir).Reload().Scalars("attention/entropy/level_0/block_0/head_0")
    assert [event.step for event in events] == [3, 9]  # three batches an epoch; not the sanity check


def test_of_a_real_model(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    run = trainer(tmp_path, callbacks=[AttentionDiagnostics(scalars=True)], logger=logger, limit_val_batches=1)
    run.validate(fractal(num_classes=2), ToyRolls(num_classes=2), verbose=False)
    (event,) = EventAccumulator(logger.log_dir).Reload().Scalars("attention/entropy/level_1/block_0/head_1")
    # A head of this level chooses among 12 x 4 cells and a condition.
    assert 0 < event.value < np.log(49)


def test_numbers_are_logged_on_demand_only(tmp_path):
    module, logger = Drawing(), TensorBoardLogger(tmp_path)
    module.attention_report = lambda canvas, label=None: {"level_0": LevelAttention(torch.eye(1), torch.eye(1))}
    trainer(tmp_path, callbacks=[AttentionDiagnostics()], logger=logger).validate(module, ToyRolls(), verbose=False)
    tags = EventAccumulator(logger.log_dir).Reload().Tags()
    assert "attention/heads/0" in tags["images"]
    assert not [tag for tag in tags["scalars"] if tag.startswith("attention/")]


def test_darker_means_less():
    figure = heatmaps({("level_0", measure): np.array([[0.0, 1.0]]) for measure in ("entropy", "reach")})
    low, high = figure.axes[0].images[0].cmap([0.0, 1.0])[:, :3].sum(axis=1)
    assert low < high
    assert pixels(figure).dtype == np.uint8
    assert pixels(figure).shape == (240, 800, 3)


def test_a_module_without_report_is_an_error(tmp_path):
    with pytest.raises(MisconfigurationException, match="TwoLevels to have `attention_report`"):
        AttentionDiagnostics().setup(trainer(tmp_path), TwoLevels(), "fit")
