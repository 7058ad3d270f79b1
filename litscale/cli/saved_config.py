"""The config that a run keeps in its folder."""

from __future__ import annotations

from pathlib import Path

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from callbacks.reporting.trainer_state import resumed_checkpoint
from datamodules.base import BatchData, offered
from lit_models.base import LitModule
from litscale.storage.files import write_atomically
from litscale.storage.run_folders import goes_on
from litscale.storage.secrets import mask_values

BATCH_SIZE_FINDER = "lightning.pytorch.callbacks.BatchSizeFinder"
LEARNING_RATE_FINDER = "lightning.pytorch.callbacks.LearningRateFinder"
SWEEP_TRIAL = "callbacks.SweepTrial"
OF_ONE_CALL = ("ckpt_path", "checkpoints.overwrite", "overwrite", "weights")
"""Options that hold for one call of the command and are not part of the run."""


class SaveConfig(SaveConfigCallback):
    """Writes the config of a ``fit`` to the run folder, and to Weights & Biases, without secrets, where it logs there.

    ``config.yaml`` holds the options with which the run began, and is never changed. If the run is resumed with other
    options, they are written beside it as ``config_from_step_<n>.yaml``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do nothing yet: other callbacks may still refuse the run folder, or change the options."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save once, when all is ready to train."""
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config with the batch size and learning rate in use, without the callbacks that found them."""
        config = self.config.clone()
        for name in OF_ONE_CALL:
            config.pop(name, None)
        # What was searched for is found by now; a resumed run keeps it. A sweep is only told by its own command.
        left_out = (BATCH_SIZE_FINDER, LEARNING_RATE_FINDER, SWEEP_TRIAL)
        callbacks = config.trainer.callbacks or []
        if any(each.class_path == LEARNING_RATE_FINDER for each in callbacks) and isinstance(pl_module, LitModule):
            config.model.init_args.optimization.lr = pl_module.lr
        if callbacks:
            config.trainer.callbacks = [each for each in callbacks if each.class_path not in left_out]
        data = offered(trainer.datamodule, BatchData)  # type: ignore[attr-defined]
        options = config.data.get("init_args", {}) if "data" in config else {}  # a class without options has none
        if data is not None and "batch_size" in options:
            config.data.init_args.batch_size = data.batch_size
        text = self.parser.dump(config, skip_none=False, skip_validation=True)
        folder = Path(trainer.default_root_dir)
        path = folder / self.config_filename
        if path.exists() and not trainer.checkpoint_callbacks:
            return  # a run that saves nothing leaves the config of the weights that lie there
        if path.exists() and goes_on(folder, resumed_checkpoint(trainer)):
            if path.read_text() == text:
                return
            path = path.with_name(f"{path.stem}_from_step_{trainer.global_step}{path.suffix}")
        write_atomically(path, text.encode())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(mask_values(yaml.safe_load(text)), allow_val_change=True)
