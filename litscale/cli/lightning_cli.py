"""The commands that train and evaluate: LightningCLI with run folders, checked checkpoints and kept scores."""

from __future__ import annotations

import sys
import tempfile
from argparse import SUPPRESS
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import lightning
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, _InstantiatorFn
from lightning.pytorch.utilities import rank_zero_warn

from callbacks import Checkpoints, PredictionWriter
from datamodules.base import WrittenData, offered
from lit_models.contracts import Generates
from litscale.cli.allocator import keep_freed_memory
from litscale.cli.config_files import LayeredConfig
from litscale.cli.errors import keep_traceback_in
from litscale.cli.evaluation import Evaluation
from litscale.cli.parser import HelpAll, Parser
from litscale.cli.runs import (
    AUTO,
    WORDS,
    ExportedCheckpointIO,
    check_weights,
    find_checkpoint,
    newest_checkpoint,
    requeued_checkpoint,
    start_from,
)
from litscale.cli.saved_config import SaveConfig
from litscale.cli.scores import as_table, is_whole, not_finite, write_scores
from litscale.cli.screen import callbacks_of_screen, drop_notices, next_command, shorten_warnings
from litscale.cli.signals import ending_at_sigterm
from litscale.cli.wandb_run import describe_run, name_commit
from litscale.storage.exported import ENDING
from litscale.storage.run_folders import CHECKPOINTS, refuse_used_folder

EVALUATIONS = ("validate", "test", "predict")


class LitscaleCLI(LightningCLI):
    """LightningCLI with one run folder (``trainer.default_root_dir``) and a command line that overrides checkpoints."""

    def __init__(self, *, args: list[str] | None, **options: Any) -> None:
        """Run a command.

        Args:
            args: the words of the command; None for those that the process was started with.
            options: other arguments of `LightningCLI`.
        """
        keep_freed_memory()
        drop_notices()
        shorten_warnings()
        self._command = (sys.argv[1:] if args is None else args)[:1]
        self._failure: Exception | None = None  # of the first constructor that failed
        super().__init__(args=args, parser_class=Parser, **options)

    commands = staticmethod(LightningCLI.subcommands)
    descriptions: ClassVar[Mapping[str, str]] = {
        "fit": "Train a model, or continue a training with --ckpt_path last.",
        "validate": "Evaluate a checkpoint on the validation data.",
        "test": "Evaluate a checkpoint on the test data.",
        "predict": "Generate, continue, fill in or reconstruct, and write the results as files.",
    }

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the chosen command, with its arguments that are no options; all commands if none is chosen.

        Only the chosen command gets a parser, since each parser takes long to make.
        """
        every = self.commands()
        return {name: arguments for name, arguments in every.items() if name in self._command} or every

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser as Lightning does, but with configs that may have layers and may be packaged ones."""
        parser = self.parser_class(dump_header=[f"lightning.pytorch=={lightning.__version__}"], **kwargs)
        parser.add_argument(
            "-c", "--config", action=LayeredConfig, help="A config: a file, or the name of a packaged one."
        )
        parser.add_argument("--layers", help=SUPPRESS)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of how runs are saved, which every run has."""
        parser.add_lightning_class_args(Checkpoints, "checkpoints")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command, whose defaults read weights only and do not collect predictions in memory."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        assert isinstance(parser, Parser)
        parser.command = f"{self.parser.prog} {subcommand}"
        parser.usage = f"{parser.command} --config CONFIG [--OPTION VALUE ...]"
        parser.description = self.descriptions.get(subcommand, parser.description)
        for name, group in (parser.groups or {}).items():
            group.title = name.capitalize()  # in place of a line of the class's docstring
        parser.add_argument("--help_all", action=HelpAll, help="Show all options and exit.")
        wanted = {"weights_only": True, "return_predictions": False, "trainer.default_root_dir": "runs/default"}
        parser.set_defaults({key: value for key, value in wanted.items() if key in parser.get_defaults()})
        if subcommand == "fit":
            parser.add_argument(
                "--overwrite",
                type=bool,
                default=False,
                help="Replace the run in the folder and its results.",
            )
            parser.link_arguments("overwrite", "checkpoints.overwrite")
            parser.add_argument(
                "--weights",
                type=str | None,
                default=None,
                help="What a new training takes its first weights from: a run folder (its best checkpoint, or the "
                "last one), a checkpoint, or model.safetensors of an export. A resumed training has its own.",
            )
        if subcommand in EVALUATIONS:
            parser.add_argument(
                "--untrained", type=bool, default=False, help="Whether random weights will do, if no others are given."
            )
        return parser

    def before_instantiate_classes(self) -> None:
        """Make or check the run folder, and let loggers whose ``save_dir`` is ``.`` write there.

        Raises:
            OSError: the folder of an evaluation cannot be made or written to.
            RunFolderError: a training would start in the folder of another run.
        """
        given = self.config[self.config.subcommand]
        trainer = given.trainer
        keep_traceback_in(Path(trainer.default_root_dir))
        if self.config.subcommand != "fit":
            make_folder(Path(trainer.default_root_dir))
        elif not (given.overwrite or trainer.fast_dev_run or trainer.enable_checkpointing is False):
            # `Checkpoints` asks again; here nothing has been written yet.
            refuse_used_folder(Path(trainer.default_root_dir), given.ckpt_path, locked=False)
        name_commit()
        # What is saved still says ``.``, so that an evaluation with another folder logs there.
        self._given = self.config.clone()
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        for logger in loggers:
            arguments: Any = getattr(logger, "init_args", None)
            if arguments is not None and logger.class_path.endswith("WandbLogger"):
                describe_run(arguments, given)
            if arguments is not None and arguments.get("save_dir") == ".":
                arguments["save_dir"] = str(trainer.default_root_dir)
                Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)

    @cached_property
    def config_dump(self) -> dict[str, Any]:
        """The options that Lightning hands to modules as hyper-parameters; parsing has checked them already."""
        options = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, skip_validation=True)
        return yaml.safe_load(options)[self.config.subcommand]

    def _dump_config(self) -> None:
        return

    def _add_instantiators(self) -> None:
        """Let jsonargparse make objects as Lightning does, and keep the first error of a constructor."""
        for key, kind in (("model", LightningModule), ("data", LightningDataModule)):
            self.parser.add_instantiator(partial(self._construct, _InstantiatorFn(cli=self, key=key)), kind)
        plain = partial(
            self._construct, lambda kind, /, *args, applied_instantiation_links, **given: kind(*args, **given)
        )
        self.parser.add_instantiator(plain, object)

    def _construct(
        self, make: Callable[..., Any], kind: type, /, *args: Any, applied_instantiation_links: Any, **given: Any
    ) -> Any:
        try:
            return make(kind, *args, applied_instantiation_links=applied_instantiation_links, **given)
        except Exception as error:
            if self._failure is None:
                error.add_note(f"in the constructor of {kind.__module__}.{kind.__qualname__}")
                self._failure = error
            raise

    def instantiate_classes(self) -> None:
        """Build the data, the model and the trainer.

        An error of a constructor is raised unchanged. In jsonargparse's own error, its message would be one line among
        the reasons why the value has none of the other types.
        """
        self._failure = None
        try:
            super().instantiate_classes()
        except Exception as error:
            if self._failure is None or self._failure is error:
                raise
            raise self._failure from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, and let each `ModelCheckpoint` without a folder write to the run folder's checkpoints.

        Raises:
            ValueError: a `ModelCheckpoint` would overwrite ``last.ckpt`` or ``best.ckpt`` of a training.
        """
        self._failure = None  # all else is built
        self.config = self._given
        trainer = super().instantiate_trainer(**kwargs)
        if self.subcommand in EVALUATIONS:
            self._evaluation = Evaluation()
            trainer.callbacks.append(self._evaluation)  # type: ignore[attr-defined]
            if str(self.config[self.subcommand].ckpt_path).endswith(ENDING):
                trainer.strategy.checkpoint_io = ExportedCheckpointIO()
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                if self.subcommand == "fit" and (callback.filename in WORDS or callback.save_last):
                    raise ValueError(
                        "trainer.callbacks: a ModelCheckpoint would write last.ckpt or best.ckpt, which litscale "
                        "writes itself: remove it, and give its monitor and mode as "
                        "--checkpoints.monitor and --checkpoints.mode"
                    )
                callback.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINTS)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoints)]
        own = config["callbacks"] or []
        own = own if isinstance(own, list) else [own]
        if config.get("logger") in (False, []):
            # Lightning's refuses to train where nothing is logged.
            own = [callback for callback in own if not isinstance(callback, LearningRateMonitor)]
        config["callbacks"] = own
        callbacks = [*callbacks, *callbacks_of_screen(config, self.subcommand == "fit")]
        return super()._instantiate_trainer(config, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command. SIGTERM ends evaluations at once, and training after the step that is under way."""
        with ending_at_sigterm():
            super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Leave out Lightning's table of scores, which cuts off their names; `_keep_scores` prints our own table."""
        given = super()._prepare_subcommand_kwargs(subcommand)
        return given | {"verbose": False} if "verbose" in given else given

    def _check_weights(self) -> None:
        given = self.config[self.subcommand]
        check_weights(str(self.subcommand), self.model, given.ckpt_path, given.untrained)

    before_validate = before_test = _check_weights

    def before_fit(self) -> None:
        """Give the model of a new training the weights that it starts from; a resumed one reads its own."""
        given = self.config[self.subcommand]
        if given.weights is not None and given.ckpt_path is None:
            start_from(self.model, given.weights)

    def before_predict(self) -> None:
        """Check the weights, and add a `PredictionWriter` if no callback would write what is generated."""
        self._check_weights()
        takes = Callback.on_predict_batch_end
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        own = [each for each in callbacks if not isinstance(each, ProgressBar)]
        if any(type(callback).on_predict_batch_end is not takes for callback in own):
            return
        if offered(self.model, Generates) and offered(self.datamodule, WrittenData):
            callbacks.append(PredictionWriter())
        else:
            rank_zero_warn("no callback writes what predict makes: add one of your own with --trainer.callbacks+=")

    def after_fit(self) -> None:
        """Print where the checkpoints are and which command to run next."""
        if self.trainer.is_global_zero and self.trainer.checkpoint_callbacks and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            print(next_command(Path(self.trainer.default_root_dir)))

    def after_validate(self) -> None:
        """Write the scores to a file, which ``litscale compare`` reads."""
        self._keep_scores("validate")

    def after_test(self) -> None:
        """Write the scores to a file, which ``litscale compare`` reads."""
        self._keep_scores("test")

    def _keep_scores(self, stage: str) -> None:
        """Print the scores and write them to a file.

        Raises:
            FloatingPointError: some scores are not finite; in the file they are null.
        """
        weights = self._evaluation.weights
        if self.trainer.fast_dev_run or weights is None:  # type: ignore[attr-defined]
            return
        values = {name: float(value) for name, value in self.trainer.logged_metrics.items()}
        where = ""
        if self.trainer.is_global_zero:
            settings = self._settings(stage)
            path = write_scores(Path(self.trainer.default_root_dir), stage, weights, settings, values)
            if self.config[self.subcommand].verbose:
                as_table(values, settings).show()
            print(f"Scores written to {path}")
            where = f" (null in {path})"
        if wrong := not_finite(values):
            raise FloatingPointError(
                f"not finite: {', '.join(wrong)}{where}. The weights are broken, or the network's precision does not "
                "suffice: evaluate an earlier checkpoint, or with --trainer.precision 32-true"
            )

    def _settings(self, stage: str) -> dict[str, Any]:
        """Return the options on which scores depend beside the weights."""
        given = self.config[self.subcommand]
        batches = self.trainer.limit_test_batches if stage == "test" else self.trainer.limit_val_batches
        # of a part of the data, each number of processes scores another part
        shared = {} if is_whole(batches) else {"processes": self.trainer.world_size}
        options = yaml.safe_load(self._parser(self.subcommand).dump(given, skip_none=False, skip_validation=True))
        return {
            "precision": self.trainer.precision,
            "batches": batches,
            **shared,
            "seed": options["seed_everything"],
            "model": options["model"],
            "data": options.get("data"),
            "callbacks": options["trainer"]["callbacks"],
        }

    def _parse_ckpt_path(self) -> None:
        """Find and check the checkpoint before anything is built, and leave all other options unchanged.

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
        if subcommand == "fit" and str(config.ckpt_path).endswith(ENDING):
            raise ValueError(
                f"--ckpt_path {config.ckpt_path}: an export holds only weights, and a resumed training needs more: "
                "give a checkpoint of the run, or start a new training from these weights with --weights"
            )
        if subcommand == "fit" and config.ckpt_path == AUTO:
            config.ckpt_path = newest_checkpoint(folders[0])
        else:
            config.ckpt_path = find_checkpoint(config.ckpt_path, folders)
        if subcommand == "fit" and config.ckpt_path is None:
            config.ckpt_path = requeued_checkpoint(folders[0])


def make_folder(folder: Path) -> None:
    """Make the folder of an evaluation and try to write there, so that a long evaluation does not fail at its end.

    Raises:
        OSError: the folder, or a file in it, cannot be made.
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
    """The command line of benchmarks, which has the same options."""

    @staticmethod
    def commands() -> dict[str, set[str]]:
        """Return the methods of `litscale.cli.bench.command.BenchTrainer`, with their arguments that are no options."""
        return {command: {"model", "datamodule"} for command in ("decode", "fractal", "costs", "masks")}


# What all of them have in common.
COMMON: dict[str, Any] = {
    "model_class": LightningModule,
    "datamodule_class": LightningDataModule,
    "subclass_mode_model": True,
    "subclass_mode_data": True,
    "auto_configure_optimizers": False,
}


def train_or_evaluate(args: list[str] | None) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        args: the words after ``litscale``; None for those that the process was started with.
    """
    LitscaleCLI(
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={"prog": "litscale"},
        args=args,
        **COMMON,
    )


def bench(args: list[str] | None) -> None:
    """Run a benchmark.

    Args:
        args: the words after ``litscale bench``; None for those that the process was started with.
    """
    from litscale.cli.bench.command import BenchTrainer

    names = {"prog": "litscale bench", "description": "Benchmarks"}
    BenchCLI(trainer_class=BenchTrainer, save_config_callback=None, parser_kwargs=names, args=args, **COMMON)
