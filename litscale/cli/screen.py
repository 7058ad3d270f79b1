"""What a training shows: an overview at its start, its progress, and the next command at its end."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sized
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn, CustomTimeColumn
from rich.console import Console
from rich.panel import Panel
from rich.progress import TaskID, TextColumn

from datamodules.base import CountedExamples, offered
from lit_models.contracts import LevelParameters
from litscale.cli.imports import HOME, OWN
from litscale.storage.run_folders import CHECKPOINTS

TIMED_STEPS = 10  # of which the duration of a training is estimated
_of_others = warnings.formatwarning
SECONDS = 30.0  # between two lines where the output is no terminal
WARNINGS = (  # of libraries, which say nothing that a user of litscale could mend
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "You're using the WeightAveraging callback with a model that overrides",  # litscale shards none, and says so
    "You're using the WeightAveraging callback, but loading a checkpoint outside",  # it holds the averaged weights
    r"The '\w+' does not have many workers",  # `throughput/data_loading_share` says whether that costs time
    r"The number of training batches \(\d+\) is smaller than the logging",  # steps are counted across epochs
    "FLOPs not found for",  # so `throughput/mfu` is not logged
)
TIPS = ("Tip: For seamless cloud", "that has Tensor Cores")  # what uses them is `trainer.precision`


def drop_notices() -> None:
    """Silence Lightning's tips and warnings that do not apply to litscale."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if _no_tip not in rank_zero.filters:
        rank_zero.addFilter(_no_tip)


def shorten_warnings() -> None:
    """Show litscale's own warnings without their place in the code; those of others say where they come from."""
    warnings.formatwarning = _warning


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    own = any(Path(filename).is_relative_to(HOME / name) for name in ("litscale", *OWN))
    return f"warning: {message}\n" if own else _of_others(message, category, filename, lineno, line)


def _no_tip(record: logging.LogRecord) -> bool:
    return not any(tip in record.getMessage() for tip in TIPS)


def callbacks_of_screen(config: dict[str, Any], training: bool) -> list[Callback]:
    """Return the overview and the progress bar, which replace those of Lightning.

    Args:
        config: options of the trainer with its callbacks as objects; an overview makes ``enable_model_summary`` False.
        training: whether the command is ``fit``.
    """
    made: list[Callback] = []
    if training and config["enable_model_summary"] is not False and not config["barebones"]:
        config["enable_model_summary"] = False
        made.append(Overview())
    own = any(isinstance(callback, ProgressBar) for callback in config["callbacks"])
    if config["enable_progress_bar"] is not False and not own and not config["barebones"]:
        made.append(Bar(leave=True) if sys.stdout.isatty() else Lines())
    return made


def position(trainer: Trainer) -> str:
    """Return how far a training is, such as ``step 30 of 700, epoch 2``; the first epoch is 1."""
    epoch, most_epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
    if trainer.max_steps > 0:
        return f"step {trainer.global_step} of {trainer.max_steps}, epoch {epoch}"
    return f"step {trainer.global_step}, epoch {epoch}" + (f" of {most_epochs}" if most_epochs > 0 else "")


class Overview(Callback):
    """Prints what is trained on what, and after a few steps how long it will take."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._first = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the overview on the first process, as plain text where the output is no terminal."""
        self._begun, self._first = 0.0, trainer.global_step
        if not trainer.is_global_zero:
            return
        lines = [f"{name:<11}{text}" for name, text in overview(trainer, pl_module).items()]
        if sys.stdout.isatty():
            Console().print(Panel("\n".join(lines), title="litscale fit", expand=False), markup=False)
        else:
            print("\n".join(lines), flush=True)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Print an estimate of the remaining time, from some steps after the first one, which takes longer."""
        done = trainer.global_step - self._first
        if done == 1 and not self._begun:
            self._begun = time.monotonic()
        if done != TIMED_STEPS + 1 or not self._begun or not trainer.is_global_zero:
            return
        each = (time.monotonic() - self._begun) / TIMED_STEPS
        self._begun = 0.0
        left = trainer.estimated_stepping_batches - trainer.global_step
        if left > 0 and left != float("inf"):
            duration = timedelta(seconds=round(left * each))
            print(f"About {duration} for the remaining {left:.0f} steps", flush=True)


def overview(trainer: Trainer, module: LightningModule) -> Mapping[str, str]:
    """Return heading -> text on the data, the model, the device and the run folder of a training."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    examples = getattr(trainer.train_dataloader, "dataset", None)
    if counted := offered(examples, CountedExamples):
        number = f", {counted.contents}"
    else:
        number = f", {len(examples)} examples" if isinstance(examples, Sized) else ""
    steps = f" in {trainer.num_training_batches} batches an epoch"
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    model = f"{type(module).__name__}, {_millions(count)} parameters"
    if levels := offered(module, LevelParameters):
        groups = levels.parameters_by_level()
        model += ": " + ", ".join(
            f"{name} {_millions(sum(each.numel() for each in group))}" for name, group in groups.items()
        )
    continued = f", continued from step {trainer.global_step}" if trainer.global_step else ""
    several = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    return {
        "data": f"{type(data).__name__}{number}{steps}" if data is not None else "none",
        "model": model,
        "device": f"{several}{trainer.strategy.root_device}, {trainer.precision}",
        "run folder": f"{trainer.default_root_dir}{continued}",
    }


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else str(count)


def next_command(run: Path) -> str:
    """Return the message at the end of a training: where its checkpoints are, and a command to run next."""
    return (
        f"Trained; the checkpoints are in {run / CHECKPOINTS}\n"
        f"Next: litscale validate --config {run / 'config.yaml'} --ckpt_path last"
    )


class Bar(RichProgressBar):
    """A progress bar over all steps of a training, which fits on 80 columns."""

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Return the columns, without the number of batches of an epoch."""
        bar = CustomBarColumn(bar_width=10)
        return [TextColumn("{task.description}"), bar, CustomTimeColumn(style=self.theme.time)]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the metrics, without the number of the logger's folder."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        return position(self.trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the time that has passed; Lightning begins it again with each epoch."""
        self._begun = time.monotonic()
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on where the last epoch ended."""
        super().on_train_epoch_start(trainer, pl_module)
        self._update(self.train_progress_bar_id, 0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Show the step and the epoch in the bar."""
        super().on_train_batch_end(trainer, pl_module, *args)
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.update(self.train_progress_bar_id, description=position(trainer))

    def _update(self, progress_bar_id: TaskID | None, current: int, visible: bool = True, hard: bool = False) -> None:
        # steps of the training in place of batches of the epoch, of which the remaining time would be wrong
        if self.progress is not None and progress_bar_id is not None and progress_bar_id == self.train_progress_bar_id:
            self.train_progress_bar.start_time = self._begun
            if self.trainer.max_steps > 0:
                self.progress.update(progress_bar_id, total=self.trainer.max_steps)
                current = self.trainer.global_step
        super()._update(progress_bar_id, current, visible, hard)


class Lines(ProgressBar):
    """Prints the progress as lines of plain text, for files and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._last = 0.0
        self._shown = -1

    def disable(self) -> None:
        """Print nothing; this is called on all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure the time until the first line."""
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Print a line if the last one is at least `SECONDS` old."""
        if time.monotonic() - self._last >= SECONDS:
            self._show(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line with the scores while a model trains."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._show(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line on the last step, unless its validation has printed one; later the epoch would be too high."""
        if trainer.global_step == trainer.max_steps != self._shown:
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last, self._shown = time.monotonic(), trainer.global_step
        if self._enabled:
            values = {name: value for name, value in self.get_metrics(trainer, pl_module).items() if name != "v_num"}
            shown = (f"{name} {float(value):.4g}" for name, value in values.items())  # type: ignore[arg-type]
            print(", ".join([position(trainer), *shown]), flush=True)
