"""The command line: ``litscale fit|validate|test|predict``, ``litscale compare`` and ``litscale bench``."""

from __future__ import annotations

import sys
import tempfile
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from callbacks import Checkpoints
from datamodules.base import BatchData, offered
from lit_models.base import LitModule
from litscale.cli import compare
from litscale.cli.config_files import LayeredConfig
from litscale.cli.evaluation import Evaluation
from litscale.cli.runs import WORDS, find_checkpoint, requeued_checkpoint
from litscale.cli.scores import not_finite, write_scores
from litscale.cli.signals import ending_at_sigterm
from litscale.storage.files import write_atomically
from litscale.storage.run_folders import CHECKPOINTS, goes_on, refuse_used_folder

# What a command says of one call, not of the run.
FINDER = "lightning.pytorch.callbacks.BatchSizeFinder"
OF_ONE_CALL = ("ckpt_path", "config", "checkpoints.overwrite", "overwrite")
EVALUATIONS = ("validate", "test", "predict")


class SaveConfig(SaveConfigCallback):
    """Writes the config of a ``fit`` to the run folder, and to Weights & Biases where it logs there.

    ``config.yaml`` is what the run was begun with, and stays so. Where the run goes on with other options, they are
    written beside it as ``config_from_step_<n>.yaml``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not yet: other callbacks may still refuse the run folder, or change the options."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save once, when all is ready to train."""
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the config as it ran."""
        config = self.config.clone()
        for name in OF_ONE_CALL:
            config.pop(name, None)
        # A batch size that was searched for is found by now; a resumed run keeps it.
        if config.trainer.callbacks:
            config.trainer.callbacks = [each for each in config.trainer.callbacks if each.class_path != FINDER]
        data = offered(trainer.datamodule, BatchData)
        if data is not None and "data" in config and "batch_size" in config.data.init_args:
            config.data.init_args.batch_size = data.batch_size
        text = self.parser.dump(config, skip_none=False, skip_validation=True)
        folder = Path(trainer.default_root_dir)
        path = folder / self.config_filename
        if path.exists() and not trainer.checkpoint_callbacks:
            return  # a run that saves nothing leaves the config of the weights that lie there
        if path.exists() and goes_on(folder, trainer.ckpt_path):
            if path.read_text() == text:
                return
            path = path.with_name(f"{path.stem}_from_step_{trainer.global_step}{path.suffix}")
        write_atomically(path, text.encode())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(yaml.safe_load(text), allow_val_change=True)


class LitscaleCLI(LightningCLI):
    """LightningCLI with one run folder (``trainer.default_root_dir``) and a command line that wins over checkpoints."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As Lightning does, with configs that have layers."""
        parser = self.parser_class(dump_header=[f"lightning.pytorch=={lightning.__version__}"], **kwargs)
        parser.add_argument(
            "-c", "--config", action=LayeredConfig, help="A config: a file, or the name of a packaged one."
        )
        parser.add_argument("--layers", help=SUPPRESS)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """How runs are saved is one policy, with options of its own."""
        parser.add_lightning_class_args(Checkpoints, "checkpoints")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Read checkpoints with weights only; predictions go to files, not to memory."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        wanted = {"weights_only": True, "return_predictions": False, "trainer.default_root_dir": "runs/default"}
        parser.set_defaults({key: value for key, value in wanted.items() if key in parser.get_defaults()})
        if subcommand == "fit":
            parser.add_argument(
                "--overwrite",
                type=bool,
                default=False,
                help="Replace the run whose checkpoints lie in the run folder, and all of its results.",
            )
            parser.link_arguments("overwrite", "checkpoints.overwrite")
        if subcommand in EVALUATIONS:
            parser.add_argument(
                "--untrained", type=bool, default=False, help="Whether random weights will do, if no others are given."
            )
        return parser

    def before_instantiate_classes(self) -> None:
        """Make an evaluation's folder, and let loggers whose ``save_dir`` is ``.`` write to the run folder.

        Raises:
            OSError: the folder cannot be made or written to.
        """
        given = self.config[self.config.subcommand]
        trainer = given.trainer
        if self.config.subcommand != "fit":
            make_folder(Path(trainer.default_root_dir))
        elif not (given.overwrite or trainer.fast_dev_run or trainer.enable_checkpointing is False):
            # `Checkpoints` asks again; here nothing has been written yet.
            refuse_used_folder(Path(trainer.default_root_dir), given.ckpt_path)
        # What is saved still says ``.``, so that an evaluation with another folder logs there.
        self._given = self.config.clone()
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        for logger in loggers:
            arguments: Any = getattr(logger, "init_args", None)
            if arguments is not None and arguments.get("save_dir") == ".":
                arguments["save_dir"] = str(trainer.default_root_dir)
                Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; checkpoints of callbacks without a folder of their own go to the run folder's."""
        self.config = self._given
        trainer = super().instantiate_trainer(**kwargs)
        if self.subcommand in EVALUATIONS:
            self._evaluation = Evaluation()
            trainer.callbacks.append(self._evaluation)
        for callback in trainer.checkpoint_callbacks:
            if getattr(callback, "dirpath", "") is None:
                if self.subcommand == "fit" and (callback.filename in WORDS or callback.save_last):
                    raise ValueError(
                        "trainer.callbacks: a ModelCheckpoint would write last.ckpt or best.ckpt, which the option "
                        "checkpoints takes care of: leave it out, and give its monitor and mode as "
                        "--checkpoints.monitor and --checkpoints.mode"
                    )
                callback.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoints)]
        return super()._instantiate_trainer(config, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; SIGTERM ends it at once, and a training after the step that is under way."""
        with ending_at_sigterm():
            super()._run_subcommand(subcommand)

    def _check_weights(self) -> None:
        """Refuse to evaluate random weights, unless that is asked for."""
        given = self.config[self.subcommand]
        own = isinstance(self.model, LitModule) and self.model.weight_files()
        if given.ckpt_path is None and not own and not given.untrained:
            options = self.model.weight_options if isinstance(self.model, LitModule) else ()
            also = f" (or {' and '.join(f'--model.{name}' for name in options)})" if options else ""
            raise ValueError(
                f"litscale {self.subcommand} was given no weights: give --ckpt_path, such as runs/NAME/checkpoints/"
                f"last.ckpt{also}, or --untrained true to use random ones"
            )

    before_validate = before_test = before_predict = _check_weights

    def after_validate(self) -> None:
        """Keep the scores, for ``litscale compare``."""
        self._keep_scores("validate")

    def after_test(self) -> None:
        """Keep the scores, for ``litscale compare``."""
        self._keep_scores("test")

    def _keep_scores(self, stage: str) -> None:
        """Write the scores, and refuse those that are no numbers.

        Raises:
            FloatingPointError: some are not finite.
        """
        weights = self._evaluation.weights
        if self.trainer.fast_dev_run or weights is None:
            return
        values = {name: float(value) for name, value in self.trainer.logged_metrics.items()}
        where = ""
        if self.trainer.is_global_zero:
            path = write_scores(Path(self.trainer.default_root_dir), stage, weights, self._settings(stage), values)
            print(f"Scores written to {path}")
            where = f" (null in {path})"
        if wrong := not_finite(values):
            raise FloatingPointError(
                f"not finite: {', '.join(wrong)}{where}. The weights are broken, or the network's precision does not "
                "suffice: evaluate an earlier checkpoint, or with --trainer.precision 32-true"
            )

    def _settings(self, stage: str) -> dict[str, Any]:
        """What scores depend on beside the weights."""
        given = self.config[self.subcommand]
        options = yaml.safe_load(self._parser(self.subcommand).dump(given, skip_none=False, skip_validation=True))
        return {
            "precision": self.trainer.precision,
            "batches": self.trainer.limit_test_batches if stage == "test" else self.trainer.limit_val_batches,
            "seed": options["seed_everything"],
            "model": options["model"],
            "data": options.get("data"),
            "callbacks": options["trainer"]["callbacks"],
        }

    def _parse_ckpt_path(self) -> None:
        """Find and check the checkpoint before anything is built, and leave the config as it was given.

        Lightning would let the checkpoint's hyper-parameters override the command line, so that
        ``--model.init_args.optimization.lr`` had no effect on a resumed run.
        """
        subcommand = self.config.get("subcommand")
        if subcommand is None or "ckpt_path" not in self.config[subcommand]:
            return
        config = self.config[subcommand]
        folders = [Path(config.trainer.default_root_dir)]
        if subcommand != "fit":  # an evaluation may have a folder of its own, and is of the run whose config it has
            folders = [Path(str(path)).parent for path in config.get("config") or ()] + folders
        config.ckpt_path = find_checkpoint(config.ckpt_path, folders)
        if subcommand == "fit" and config.ckpt_path is None:
            config.ckpt_path = requeued_checkpoint(folders[0])


def make_folder(folder: Path) -> None:
    """Make a folder for an evaluation, before that is run in vain.

    Raises:
        OSError: it cannot be made, or files in it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno, f"trainer.default_root_dir: cannot write there ({error.strerror}); give another", str(folder)
        ) from error


class BenchCLI(LitscaleCLI):
    """The same for benchmarks."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Methods of `litscale.cli.bench.BenchTrainer`, and their arguments that are no options of their own."""
        return {command: {"model", "datamodule"} for command in ("decode", "costs", "masks")}


def main(args: list[str] | None = None) -> None:
    """Entry point of the ``litscale`` command."""
    words = sys.argv[1:] if args is None else args
    options: dict[str, Any] = {"subclass_mode_model": True, "subclass_mode_data": True}
    options |= {"auto_configure_optimizers": False}
    if words[:1] == ["compare"]:
        compare.main(words[1:])
        return
    if words[:1] == ["bench"]:
        from litscale.cli.bench import BenchTrainer

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
        parser_kwargs={"epilog": "and: litscale compare RUN ..., litscale bench --help"},
        args=args,
        **options,
    )
