"""What a training shows: overview, progress and next command, as plain text where the output is no terminal."""

import io
import logging
import warnings
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.callbacks.progress import rich_progress
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.trainer.connectors import data_connector
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from rich.console import Console

from litscale.cli import screen
from litscale.cli.main import main
from litscale.cli.screen import Lines, Overview, callbacks_of_screen, drop_notices, position, shorten_warnings


def test_steps_and_epochs_are_counted_from_one():
    at = SimpleNamespace(global_step=30, max_steps=700, current_epoch=1, max_epochs=None)
    assert position(at) == "step 30 of 700, epoch 2"
    at = SimpleNamespace(global_step=30, max_steps=-1, current_epoch=1, max_epochs=4)
    assert position(at) == "step 30, epoch 2 of 4"
    at = SimpleNamespace(global_step=30, max_steps=-1, current_epoch=1, max_epochs=-1)
    assert position(at) == "step 30, epoch 2"


@pytest.fixture
def shown(tmp_path, settings):
    """A config that trains for 6 steps of 3 an epoch and shows what it does."""
    content = settings(tmp_path / "run")
    for option in ("enable_progress_bar", "enable_model_summary"):
        del content["trainer"][option]
    content["trainer"] |= {"max_steps": 6, "num_sanity_val_steps": 0}
    path = tmp_path / "shown.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_an_overview_and_lines(tmp_path, shown, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(screen, "TIMED_STEPS", 2)
    main(["fit", "--config", shown])
    out = capsys.readouterr().out
    run = tmp_path / "run"
    assert "data       PianoRollDataModule, 6 pieces, 12 windows of 16 steps in 3 batches an epoch" in out
    assert "model      LitFractal, " in out
    assert " parameters: level_0 " in out
    assert "device     cpu, 32-true" in out
    assert f"run folder {run}" in out
    assert "for the remaining 3 steps" in out
    lines = [line for line in out.splitlines() if line.startswith("step ")]
    begins = ["step 3 of 6, epoch 1, train/loss ", "step 6 of 6, epoch 2, train/loss "]
    assert [line[: len(begin)] for line, begin in zip(lines, begins, strict=True)] == begins
    assert "v_num" not in out
    assert f"Next: litscale validate --config {run / 'config.yaml'} --ckpt_path last" in out
    main(["fit", "--config", shown, "--trainer.max_steps", "9", "--ckpt_path", "last"])
    assert f"run folder {run}, continued from step 6" in capsys.readouterr().out


def test_the_bar_fits_on_80_columns(tmp_path, shown, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(rich_progress, "get_console", lambda: console)
    monkeypatch.setattr(rich_progress, "reconfigure", lambda **options: None)
    words = ["--trainer.logger", "false", "--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor"]
    words += ["--trainer.callbacks+=litscale.cli.screen.Bar", "--trainer.callbacks.leave=true"]
    main(["fit", "--config", shown, *words])
    text = out.getvalue()
    assert "step 6 of 6, epoch 2" in text
    assert "train/loss: " in text
    assert "val/nats_per_step: " in text
    assert "v_num" not in text
    assert "/-2" not in text


def test_the_bar_never_goes_back(tmp_path, shown, monkeypatch):
    """Its remaining time is computed from its advances."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rich_progress, "get_console", lambda: Console(file=io.StringIO(), force_terminal=True))
    monkeypatch.setattr(rich_progress, "reconfigure", lambda **options: None)
    update, places, begun = rich_progress.CustomProgress.update, [], set()

    def noted(self, task_id, **options):
        update(self, task_id, **options)
        task = self.tasks[task_id]
        if task.description.startswith("step") and "completed" in options:
            places.append((task.completed, task.total))
            begun.add(task.start_time)

    monkeypatch.setattr(rich_progress.CustomProgress, "update", noted)
    words = ["--trainer.callbacks+=litscale.cli.screen.Bar", "--trainer.callbacks.leave=true"]
    main(["fit", "--config", shown, *words])
    assert places == [(step, 6) for step in (0, 1, 2, 3, 3, 4, 5, 6)]
    assert len(begun) == 1


def test_own_choices_are_kept():
    config = {"callbacks": [Lines()], "enable_progress_bar": None, "enable_model_summary": False, "barebones": False}
    assert callbacks_of_screen(config, training=True) == []
    config |= {"callbacks": [], "enable_model_summary": None}
    assert [type(each) for each in callbacks_of_screen(config, training=True)][:1] == [Overview]
    assert config["enable_model_summary"] is False
    config |= {"enable_progress_bar": False}
    assert callbacks_of_screen(config, training=False) == []


def test_tips_are_left_out(caplog):
    drop_notices()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, logger.name):
        rank_zero_info("Tip: For seamless cloud logging, try installing something")
        rank_zero_info("You are using a CUDA device ('A') that has Tensor Cores. To properly utilize them, ...")
        rank_zero_info("GPU available")
    assert [record.getMessage() for record in caplog.records] == ["GPU available"]


class Configured(BoringModel):
    """A module that makes no layers before training, but could."""

    def configure_model(self):
        """Make no layer."""


def test_warnings_that_nobody_can_mend_are_left_out(monkeypatch):
    module, trainer = Configured(), Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
    monkeypatch.setattr(data_connector, "suggested_max_num_workers", lambda devices: 15)

    def warned():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if notices_dropped:
                drop_notices()
            EMAWeightAveraging().setup(trainer, module, "fit")
            EMAWeightAveraging().on_load_checkpoint(trainer, module, {})
            get_available_flops(torch.device("cuda"), torch.float32)
            data_connector._worker_check(trainer, torch.utils.data.DataLoader([0]), "train_dataloader")
            warnings.warn("a warning of a user's own code", stacklevel=1)
        return [str(warning.message)[:30] for warning in caught]

    notices_dropped = False
    assert len(warned()) == 5
    notices_dropped = True
    assert warned() == ["a warning of a user's own code"]


@pytest.mark.filterwarnings("default")
def test_epochs_shorter_than_the_steps_between_logs_are_no_fault(shown, recwarn):
    drop_notices()
    main(["fit", "--config", shown, "--trainer.log_every_n_steps", "5"])
    assert not [each for each in recwarn if "logging interval" in str(each.message)]


def test_own_warnings_are_a_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    shorten_warnings()
    assert warnings.formatwarning("3 notes", UserWarning, screen.__file__, 3) == "warning: 3 notes\n"
    assert warnings.formatwarning("old", UserWarning, io.__file__, 3).startswith(f"{io.__file__}:3: UserWarning: old\n")


def test_the_last_step_is_shown_once(monkeypatch, capsys):
    lines = Lines()
    monkeypatch.setattr(lines, "get_metrics", lambda trainer, module: {"train/loss": 2, "v_num": 1})
    fit = SimpleNamespace(fn="fit")
    at = SimpleNamespace(
        global_step=6,
        max_steps=6,
        current_epoch=0,
        max_epochs=-1,
        sanity_checking=False,
        state=fit,
        is_global_zero=True,
    )
    lines.on_train_start(at, None)
    lines.on_train_batch_end(at, None)
    lines.on_train_epoch_end(at, None)  # without a validation
    lines.on_validation_end(at, None)
    lines.on_train_epoch_end(at, None)  # after one
    assert capsys.readouterr().out.splitlines() == ["step 6 of 6, epoch 1, train/loss 2"] * 2
