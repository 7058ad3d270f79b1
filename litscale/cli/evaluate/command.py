"""The command line of ``litscale evaluate``, and its loop over the checkpoints."""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from lit_models.runs import CONFIG
from litscale.cli.errors import CommandParser
from litscale.cli.evaluate.evaluator import End, Evaluator, Task, Wait, Watch
from litscale.cli.evaluate.folder import EvaluationFolder
from litscale.cli.evaluate.selection import Selection
from litscale.cli.lightning_cli import COMMON, LitscaleCLI
from litscale.cli.parser import Parser
from litscale.cli.scores import not_finite
from litscale.cli.signals import ending_at_sigterm
from litscale.storage.run_folders import EVALUATIONS

T = TypeVar("T")
DESCRIPTION = """Evaluate the checkpoints of a run with the config of the run. Layers (--config) and options of litscale
validate or test change this config.

The results are in RUN/evaluations/NAME: scores.csv, scores.md and scores.png over the steps, best_by_SCORE.json, and
for each step a folder step_N with the files of its evaluation. The scores also go to the run's loggers. Checkpoints
that have scores are not evaluated again, and several evaluators may work at the same time."""

GIVEN = {
    "--ckpt_path": "the checkpoints are those of the run; give --best, --last or --checkpoints",
    "--trainer.default_root_dir": f"the results go to RUN/{EVALUATIONS}/NAME; give --name",
}
"""Options of ``litscale validate`` and ``test`` -> why an evaluation of a run has none."""


class EvaluationTrainer(Trainer):
    """A trainer whose folder is a different one for each checkpoint.

    Attributes:
        evaluation_folder: the folder to which callbacks write; None for the given ``trainer.default_root_dir``.
    """

    evaluation_folder: Path | None = None

    @property
    def default_root_dir(self) -> str:
        """The folder of the current evaluation."""
        return super().default_root_dir if self.evaluation_folder is None else str(self.evaluation_folder)


class EvaluateCLI(LitscaleCLI):
    """Runs ``litscale validate`` or ``test`` on many checkpoints.

    Args:
        run: the run folder.
        options: options of ``litscale evaluate``, see `read_words`.
        args: the words of ``litscale validate`` or ``test``.
    """

    def __init__(self, run: Path, options: argparse.Namespace, args: list[str]) -> None:
        self._run, self._options = run, options
        super().__init__(args=args, trainer_class=EvaluationTrainer, save_config_callback=None, **COMMON)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse the given words, without Lightning's warning that the process was started with other ones."""
        self.config = parser.parse_args(args)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser of a command, whose errors name ``litscale evaluate``, which was typed."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        assert isinstance(parser, Parser)
        parser.command = "litscale evaluate"
        return parser

    def before_instantiate_classes(self) -> None:
        """Make the folder, and keep the training's loggers from the trainer, whose steps are not the training's."""
        given = self.config[self.config.subcommand].trainer
        options = yaml.safe_load(self.parser.dump(self.config, skip_validation=True))[self.config.subcommand]
        self._loggers = _logger_options(options["trainer"].get("logger"))
        given.logger = False
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer without callbacks that would save a training."""
        trainer = super().instantiate_trainer(**kwargs)
        kept = [callback for callback in trainer.callbacks if not isinstance(callback, ModelCheckpoint)]  # type: ignore[attr-defined]
        trainer.callbacks = kept  # type: ignore[attr-defined]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Evaluate one checkpoint after the other, with all processes of this evaluator together.

        Raises:
            ValueError: the strategy starts new processes each time, or ``trainer.fast_dev_run`` is given.
        """
        launcher = self.trainer.strategy.launcher
        if isinstance(launcher, _MultiProcessingLauncher):
            raise ValueError("litscale evaluate: trainer.strategy starts new processes each time; give ddp instead")
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise ValueError("trainer.fast_dev_run leaves no scores: give --trainer.limit_val_batches 1 and a --name")
        with ending_at_sigterm():
            try:
                if launcher is None:
                    self._evaluate_all(subcommand)
                else:
                    launcher.launch(self._evaluate_all, subcommand, trainer=self.trainer)
            except BaseException:
                if launcher is not None:  # the processes that it started may wait for this one
                    launcher.kill(signal.SIGTERM)
                raise

    def _evaluate_all(self, stage: str) -> None:
        """Evaluate checkpoints until none is left; the first process decides what is next, and all others follow.

        Raises:
            FloatingPointError: some scores are not finite; it is raised after all evaluations.
        """
        # 1. what is to be done
        given = self._options
        self.trainer.strategy.setup_environment()
        folder = EvaluationFolder(self._run, given.name)
        watch = Watch(given.watch, given.patience, given.poll)
        evaluator = Evaluator(self._run, folder, given.selection, watch, loggers=self._loggers, modes=self._modes())
        self._by_first(partial(folder.claim, self._settings(stage) | {"stage": stage}))
        # 2. do it
        failed = []
        try:
            while not isinstance(decision := self._by_first(evaluator.next), End):
                if isinstance(decision, Wait):
                    time.sleep(decision.seconds)
                    continue
                scores = self._evaluate(stage, decision)
                self._by_first(partial(evaluator.keep, scores))
                failed += [decision.step] if not_finite(scores) else []
        # Whatever made it fail would make the next evaluator fail, too, if it took up this one's snapshot.
        except Exception:
            evaluator.give_up()
            raise
        finally:
            evaluator.release()
        # 3. say so
        if self.trainer.is_global_zero:
            print(decision.reason)
            known = dict.fromkeys(name for each in folder.evaluated().values() for name in each.scores)
            for name in (name for name, _ in given.monitor if name not in known):
                print(f"--monitor {name}: there is no such score, but {', '.join(known)}")
        if failed:
            raise FloatingPointError(f"some scores are not finite, at steps {', '.join(map(str, failed))}")

    def _by_first(self, do: Callable[[], T]) -> T:
        """Call a function in the first process; return its result, or raise its error, in all processes."""
        strategy = self.trainer.strategy
        outcome: T | Exception | None = None
        if strategy.is_global_zero:
            try:
                outcome = do()
            # Whatever it is, the others would wait for ever.
            except Exception as error:
                outcome = error
        outcome = strategy.broadcast(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]

    def _evaluate(self, stage: str, task: Task) -> dict[str, float]:
        """Validate or test one checkpoint as ``litscale validate`` or ``test`` does, and return its scores."""
        seed = self.config[stage].seed_everything
        if seed is not None and seed is not False:
            seed_everything(seed, workers=True, verbose=False)  # whatever was evaluated before
        trainer = self.trainer
        assert isinstance(trainer, EvaluationTrainer)
        trainer.ckpt_path = None
        trainer.evaluation_folder = task.folder
        self._evaluation.shown_checkpoint = task.checkpoint
        if trainer.is_global_zero:
            print(f"Step {task.step}: {task.checkpoint}")
        run = trainer.validate if stage == "validate" else trainer.test
        source = {"datamodule": self.datamodule, "ckpt_path": str(task.snapshot)}
        try:
            run(self.model, **source, weights_only=True, verbose=False)  # `_keep_scores` prints the scores
        except Exception as error:
            error.add_note(f"in the evaluation of {task.checkpoint}, step {task.step}, with the config of {self._run}")
            raise
        try:
            self._keep_scores(stage)
        except FloatingPointError as error:  # the other checkpoints come first
            if trainer.is_global_zero:
                print(f"Step {task.step}: {error}")
        return {name: float(value) for name, value in trainer.logged_metrics.items()}

    def _modes(self) -> dict[str, str]:
        """Return score -> ``min`` or ``max`` for the scores for which the options say which is better."""
        policy = self.config[self.subcommand].checkpoints
        own = {} if policy.monitor is None else {policy.monitor: policy.mode}
        return own | dict(self._options.monitor)


def _logger_options(given: Any) -> list[dict[str, Any]]:
    """Return the options of a trainer's loggers: Lightning's default one for None or True, none for False."""
    if given is None or given is True:
        return [{"class_path": "TensorBoardLogger", "init_args": {"save_dir": ".", "name": "lightning_logs"}}]
    if given is False:
        return []
    return given if isinstance(given, list) else [given]


def _monitor(text: str) -> tuple[str, str]:
    """Parse ``NAME``, ``NAME:min`` or ``NAME:max`` as a score and its mode, which is ``min`` by default."""
    name, _, mode = text.partition(":")
    if not name or mode not in ("", "min", "max"):
        raise argparse.ArgumentTypeError(f"{text}: give NAME, NAME:min or NAME:max")
    return name, mode or "min"


def _duration(text: str) -> float:
    """Parse a number of seconds or minutes, which must not be negative."""
    value = float(text)  # whose ValueError argparse words itself
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number that is not negative")
    return value


def parser() -> CommandParser:
    """Return the parser of the options beside those of ``litscale validate`` and ``test``."""
    made = CommandParser(
        "litscale evaluate",
        DESCRIPTION,
        usage="litscale evaluate RUN [options] [--config LAYER ...]",
    )
    # 1. what is evaluated
    made.add_argument("--name", help="name of the evaluation, one for each set of settings; by default the stage")
    made.add_argument("--stage", choices=("validate", "test"), default="validate", help="whose data and scores to use")
    made.add_argument("--best", action="store_true", help="evaluate best.ckpt instead of all checkpoints")
    made.add_argument("--last", action="store_true", help="evaluate last.ckpt instead of all checkpoints")
    made.add_argument("--checkpoints", metavar="GLOB", help="evaluate the files in RUN/checkpoints that match this")
    made.add_argument("--every", type=int, metavar="STEPS", help="evaluate at most one checkpoint per this many steps")
    # 2. how long
    made.add_argument("--watch", action="store_true", help="wait for new checkpoints until the run has ended")
    made.add_argument(
        "--patience",
        type=_duration,
        default=60.0,
        metavar="MINUTES",
        help="end --watch after this time without a training or a new checkpoint (60)",
    )
    made.add_argument(
        "--poll", type=_duration, default=10.0, metavar="SECONDS", help="time between two checks of --watch (10)"
    )
    # 3. what is marked in the table
    made.add_argument(
        "--monitor",
        type=_monitor,
        action="append",
        default=[],
        metavar="NAME[:max]",
        help="also record the best step by this score",
    )
    return made


def read_words(words: Sequence[str]) -> tuple[Path, argparse.Namespace, list[str]]:
    """Parse the words after ``litscale evaluate``; an error in them ends the process.

    Returns:
        The run folder, the options beside those of ``litscale validate`` and ``test``, and the words of these.
    """
    # 1. the words
    options = parser()
    if not words or words[0].startswith("-"):
        options.parse_args(words[:1] if words and words[0] in ("-h", "--help") else [])
        options.error("give the folder of a run first: litscale evaluate RUN")
    run = Path(words[0])
    given, rest = options.parse_known_args(words[1:])
    given.name = given.stage if given.name is None else given.name
    # 2. whether they are possible
    try:
        given.selection = Selection(given.best, given.last, given.checkpoints, given.every)
    except ValueError as error:
        options.error(str(error))
    for option, reason in GIVEN.items():
        if any(word.partition("=")[0] == option for word in rest):
            options.error(f"{option}: {reason}")
    if not given.name or Path(given.name).name != given.name or given.name.startswith("."):
        options.error(f"--name {given.name}: give a name for a folder in {run / EVALUATIONS}")
    # 3. those of the command that evaluates a checkpoint
    folder = str(run / EVALUATIONS / given.name)
    return run, given, [given.stage, "--config", str(run / CONFIG), *rest, "--trainer.default_root_dir", folder]


def main(words: Sequence[str]) -> None:
    """Evaluate the checkpoints of a run.

    Args:
        words: the words after ``litscale evaluate``.
    """
    run, given, stage = read_words(words)
    config = run / CONFIG
    if given.watch and not config.is_file():
        print(f"Waiting for {config}, which a training writes when it begins")
        _wait_for(config, given)
    if not config.is_file():
        parser().error(
            f"{config}: no such file; give the folder of a run, the trainer.default_root_dir of its litscale fit"
        )
    EvaluateCLI(run, given, stage)


def _wait_for(path: Path, given: argparse.Namespace) -> None:
    """Wait until a file exists or the minutes of ``--patience`` have passed."""
    begun = time.monotonic()
    while not path.is_file() and time.monotonic() - begun < 60 * given.patience:
        time.sleep(given.poll)
