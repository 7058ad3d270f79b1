"""The command line: ``litscale fit|validate|test|predict``, ``litscale compare`` and ``litscale bench decode``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from callbacks.json_text import json_text
from litscale import compare
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.files import write_atomically

SPECIAL_CHECKPOINTS = ("best", "last", "hpc", "registry")


class SaveConfig(SaveConfigCallback):
    """Writes the config of a ``fit`` to the run folder, and to Weights & Biases where it logs there."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once, in ``fit`` only: an evaluation must not replace the config that the run was trained with."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` under a temporary name, then rename it."""
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_none=False)
        temporary = folder / f".{self.config_filename}.{os.getpid()}"
        temporary.write_text(text)
        temporary.replace(folder / self.config_filename)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(yaml.safe_load(text), allow_val_change=True)


class LitscaleCLI(LightningCLI):
    """LightningCLI with one run folder (``trainer.default_root_dir``) and a command line that wins over checkpoints."""

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Read checkpoints with weights only; predictions go to files, not to memory."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        wanted = {"weights_only": True, "return_predictions": False, "trainer.default_root_dir": "runs/default"}
        parser.set_defaults({key: value for key, value in wanted.items() if key in parser.get_defaults()})
        return parser

    def before_instantiate_classes(self) -> None:
        """Let loggers whose ``save_dir`` is ``.`` write to the run folder."""
        trainer = self.config[self.config.subcommand].trainer
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        for logger in loggers:
            arguments: Any = getattr(logger, "init_args", None)
            if arguments is not None and arguments.get("save_dir") == ".":
                arguments["save_dir"] = str(trainer.default_root_dir)
                Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; checkpoints without a folder of their own go to ``checkpoints`` in the run folder."""
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if getattr(callback, "dirpath", "") is None:
                callback.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        return trainer

    def after_validate(self) -> None:
        """Keep the scores, for ``litscale compare``."""
        self._keep_scores("validate")

    def after_test(self) -> None:
        """Keep the scores, for ``litscale compare``."""
        self._keep_scores("test")

    def _keep_scores(self, stage: str) -> None:
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            values = {name: float(value) for name, value in self.trainer.logged_metrics.items()}
            write_atomically(Path(self.trainer.default_root_dir) / f"scores_{stage}.json", json_text(values))

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint before anything is built, and leave the config as it was given.

        Lightning would let the checkpoint's hyper-parameters override the command line, so that
        ``--model.init_args.optimization.lr`` had no effect on a resumed run.
        """
        if self.config.get("subcommand"):
            check_checkpoint(self.config[self.config.subcommand].get("ckpt_path"))


def check_checkpoint(path: str | os.PathLike[str] | None) -> None:
    """Refuse a checkpoint that is missing, damaged or would run code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read with weights only, or holds no state dict.
    """
    if path is None or path in SPECIAL_CHECKPOINTS or Path(path).is_dir():
        return
    checkpoint = read_checkpoint(path, "--ckpt_path")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(
            f"--ckpt_path {path} is no Lightning checkpoint: it has no state_dict. Published weights are given as "
            "--model.official_checkpoint"
        )


class BenchCLI(LitscaleCLI):
    """The same for benchmarks."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Methods of `litscale.bench.BenchTrainer`, and their arguments that are no options of their own."""
        return {"decode": {"model", "datamodule"}}


def main(args: list[str] | None = None) -> None:
    """Entry point of the ``litscale`` command."""
    words = sys.argv[1:] if args is None else args
    options: dict[str, Any] = {"subclass_mode_model": True, "subclass_mode_data": True}
    options |= {"auto_configure_optimizers": False}
    if words[:1] == ["compare"]:
        compare.main(words[1:])
        return
    if words[:1] == ["bench"]:
        from litscale.bench import BenchTrainer

        if args is None:
            del sys.argv[1]  # Lightning reads the rest there, and warns if it is given as args
        BenchCLI(
            LightningModule,
            LightningDataModule,
            trainer_class=BenchTrainer,
            save_config_callback=None,
            parser_kwargs={"prog": "litscale bench", "description": "Benchmarks"},
            args=None if args is None else words[1:],
            **options,
        )
        return
    LitscaleCLI(
        LightningModule,
        LightningDataModule,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={"epilog": "and: litscale compare RUN ..., litscale bench decode --help"},
        args=args,
        **options,
    )
