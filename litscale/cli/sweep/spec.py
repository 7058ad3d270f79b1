"""`SweepSpec`: the checked content of a sweep's YAML file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from math import isfinite, prod
from pathlib import Path
from typing import Any

import optuna
import yaml

from litscale.cli.config_files import find_config
from litscale.storage.sweep_record import make

RANGE = ("low", "high", "log", "step", "int")
SAMPLERS = ("grid", "random", "tpe", "gp", "cmaes", "nsgaii")
PLANNED = ("grid", "random")  # whose points do not depend on scores
MOST_POINTS = 100_000  # of a grid
GIVEN = ("trainer.default_root_dir", "ckpt_path", "checkpoints.monitor", "checkpoints.mode")  # by the sweep itself


class SweepError(ValueError):
    """A fault of a sweep; the message names the file or folder and says how to correct it."""


@dataclass(frozen=True)
class SweepSpec:
    """A sweep.

    Attributes:
        path: path of the YAML file.
        config: the layers of each trial, as ``--config`` takes them.
        space: path of an option -> a list of values, ``{values: [...]}``, or a range ``{low, high, log, step, int}``.
        metric: the score of a validation by which trials are compared; the best one of a trial counts.
        mode: ``min`` or ``max``.
        trials: number of trials; None for all points of a grid.
        sampler: ``name`` and options of Optuna's class; the names are `SAMPLERS`.
        pruner: ``name`` and options of Optuna's class; None for no pruner.
        seed: seed of the sampler.
        jobs: number of trials that run at a time.
        folder: folder of the sweep; None for ``runs/sweeps/`` and the name of the file.
        slurm: options of submitit's ``SlurmExecutor``, if trials are jobs of SLURM; None for processes here.
    """

    path: Path
    config: list[str]
    space: dict[str, Any]
    metric: str
    mode: str = "min"
    trials: int | None = None
    sampler: dict[str, Any] | str = "tpe"
    pruner: dict[str, Any] | str | None = None
    seed: int = 0
    jobs: int = 1
    folder: str | None = None
    slurm: dict[str, Any] | None = None

    @property
    def root(self) -> Path:
        """The folder of the sweep."""
        return Path("runs/sweeps") / self.path.stem if self.folder is None else Path(self.folder)

    @property
    def sampler_options(self) -> dict[str, Any]:
        """The name and the options of the sampler."""
        return _named(self.sampler)

    @property
    def planned(self) -> bool:
        """Whether no point depends on scores."""
        return self.sampler_options["name"] in PLANNED

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that must not change when a sweep is resumed."""
        pruner = None if self.pruner is None else _named(self.pruner)
        names = ("config", "space", "metric", "mode", "seed")
        return {name: getattr(self, name) for name in names} | {"sampler": self.sampler_options, "pruner": pruner}

    @cached_property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Optuna's distribution of each option; values of lists are JSON, as Optuna has no lists."""
        return {name: _distribution(f"{self.path}: space: {name}", given) for name, given in self.space.items()}

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """All points of a grid as Optuna's values; the last parameter varies fastest."""
        axes = [_values(f"{self.path}: space: {name}", each) for name, each in self.distributions.items()]
        if prod(map(len, axes)) > MOST_POINTS:
            raise SweepError(f"{self.path}: space: the grid has more than {MOST_POINTS} points; give another sampler")
        return [dict(zip(self.space, point, strict=True)) for point in product(*axes)]

    @property
    def total(self) -> int:
        """The number of trials."""
        if self.sampler_options["name"] != "grid":
            assert self.trials is not None
            return self.trials
        return len(self.points) if self.trials is None else min(self.trials, len(self.points))

    def value(self, name: str, internal: Any) -> Any:
        """Return the value of an option that Optuna's value stands for."""
        categorical = isinstance(self.distributions[name], optuna.distributions.CategoricalDistribution)
        return json.loads(internal) if categorical else internal

    def trial_folder(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.root / "trials" / f"{number:04d}"

    def words(self, number: int, params: Mapping[str, Any]) -> list[str]:
        """Return the command line of a trial, after ``litscale``.

        Args:
            number: number of the trial.
            params: option -> Optuna's value.
        """
        values = {name: self.value(name, each) for name, each in params.items()}
        return [
            "fit",
            *(word for config in self.config for word in ("--config", config)),
            *(f"--{name}={each if isinstance(each, str) else json.dumps(each)}" for name, each in values.items()),
            "--trainer.callbacks+=callbacks.SweepTrial",  # after the point, which may say which callbacks there are
            f"--trainer.callbacks.sweep={self.root}",
            f"--trainer.callbacks.number={number}",
            f"--checkpoints.monitor={self.metric}",
            f"--checkpoints.mode={self.mode}",
            f"--trainer.default_root_dir={self.trial_folder(number)}",
            "--ckpt_path=auto",
        ]


def read_sweep(path: Path) -> SweepSpec:
    """Read and check a sweep's file.

    Raises:
        SweepError: the file is missing or not YAML, or a setting is unknown, missing or invalid.
    """
    # 1. the file
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SweepError(f"{path}: no YAML file that can be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise SweepError(f"{path}: give the settings of a sweep: config, space, metric, ...")
    known = [field.name for field in fields(SweepSpec) if field.name != "path"]
    for key in content:
        if key not in known:
            similar = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(known)}"
            raise SweepError(f"{path}: unknown setting {key}; {hint}")
    # 2. what each sweep needs
    for key in ("config", "space", "metric"):
        if not content.get(key):
            raise SweepError(f"{path}: {key} is missing or empty")
    configs = content["config"] if isinstance(content["config"], list) else [content["config"]]
    try:
        spec = SweepSpec(path, **content | {"config": [_find(path, str(config)) for config in configs]})
    except TypeError as error:  # a config that is not found
        raise SweepError(f"{path}: {error}") from error
    _check(spec)
    return spec


def _check(spec: SweepSpec) -> None:
    """Refuse settings with which no trial could run.

    Raises:
        SweepError: a setting is invalid.
    """
    path = spec.path
    # 1. kinds of values
    if not isinstance(spec.space, dict) or not all(isinstance(name, str) for name in spec.space):
        raise SweepError(f"{path}: space must give for each option a list of values or a range, not {spec.space!r}")
    if given := [name for name in GIVEN if name in spec.space]:
        raise SweepError(f"{path}: space: {given[0]} is set by the sweep itself: remove it")
    for name in ("metric", "folder"):
        text = getattr(spec, name)
        if not isinstance(text, str) and not (name == "folder" and text is None):
            raise SweepError(f"{path}: {name} must be text, not {text!r}")
    if spec.mode not in ("min", "max"):
        raise SweepError(f"{path}: mode must be min or max, not {spec.mode!r}")
    for name in ("seed", "jobs", "trials"):
        number = getattr(spec, name)
        left_out = name == "trials" and number is None
        if not left_out and (type(number) is not int or number < (name != "seed")):
            raise SweepError(f"{path}: {name} must be a whole number, at least {int(name != 'seed')}, not {number!r}")
    for name in ("sampler", "pruner"):
        given = getattr(spec, name)
        if given is not None and not isinstance(given, str) and not (isinstance(given, dict) and "name" in given):
            raise SweepError(f"{path}: {name} must be a name, or {{name: ..., options}}, not {given!r}")
    if spec.slurm is not None and not isinstance(spec.slurm, dict):
        raise SweepError(f"{path}: slurm must give options, such as {{partition: gpu}}, not {spec.slurm!r}")
    # 2. the sampler and the space
    if spec.sampler_options["name"] not in SAMPLERS or (spec.planned and len(spec.sampler_options) > 1):
        raise SweepError(
            f"{path}: sampler must be one of {', '.join(SAMPLERS)} ({' and '.join(PLANNED)} have no options), not "
            f"{spec.sampler!r}"
        )
    short: dict[str, str] = {}
    for name in spec.distributions:
        other = short.setdefault(name.replace("init_args.", ""), name)
        if other != name:
            raise SweepError(f"{path}: space: {other} and {name} are the same option")
    # 3. how many trials; a grid's points are made here, as they may be too many or of a range without a step
    if spec.sampler_options["name"] == "grid":
        _ = spec.points
    elif spec.trials is None:
        raise SweepError(f"{path}: give the number of trials")
    # 4. the options of Optuna's classes, which know them alone
    try:
        if spec.sampler_options["name"] != "grid":
            make(optuna.samplers, "Sampler", spec.sampler_options, seed=0)
        make(optuna.pruners, "Pruner", spec.settings["pruner"] or {"name": "nop"})
    except (ValueError, ImportError) as error:
        raise SweepError(f"{path}: sampler or pruner: {error}") from error


def _named(given: dict[str, Any] | str) -> dict[str, Any]:
    return {"name": given} if isinstance(given, str) else given


def _find(path: Path, config: str) -> str:
    """Return the path of a sweep's config: relative to the sweep's file, or else as ``--config`` finds it."""
    beside = path.parent / config
    return str(beside) if beside.is_file() else find_config(config)


def _distribution(where: str, given: Any) -> optuna.distributions.BaseDistribution:
    """Return Optuna's distribution of one option.

    Raises:
        SweepError: the option has no values, the same value twice, or an invalid range.
    """
    if isinstance(given, dict) and set(given) == {"values"}:
        given = given["values"]
    if isinstance(given, list):
        try:
            texts = [json.dumps(value) for value in given]
        except TypeError as error:  # such as a date
            raise SweepError(f"{where}: {error}; put text into quotes") from error
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if not texts or twice:
            raise SweepError(f"{where}: {'no values' if not texts else 'the same value twice: ' + ', '.join(twice)}")
        return optuna.distributions.CategoricalDistribution(texts)
    if not isinstance(given, dict) or not {"low", "high"} <= set(given) <= set(RANGE):
        raise SweepError(f"{where}: give a list of values, or a range of {', '.join(RANGE)} with low and high")
    low, high, step = given["low"], given["high"], given.get("step")
    for key, number in (("low", low), ("high", high), ("step", step)):
        if isinstance(number, str):
            raise SweepError(f"{where}: {key} is the text {number!r}; YAML reads 1.0e-4 as a number, 1e-4 as text")
        if type(number) not in (int, float) and not (key == "step" and number is None):
            raise SweepError(f"{where}: {key} must be a number, not {number!r}")
    try:
        if not all(isfinite(number) for number in (low, high)) or low >= high:
            raise ValueError("low must be below high")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a range that is not a multiple of the step ends below high
            if given.get("int", False):
                return optuna.distributions.IntDistribution(low, high, given.get("log", False), step or 1)
            return optuna.distributions.FloatDistribution(low, high, given.get("log", False), step)
    except (ValueError, TypeError) as error:
        raise SweepError(f"{where}: {error}") from error


def _values(where: str, distribution: optuna.distributions.BaseDistribution) -> list[Any]:
    """Return the values of an axis of a grid.

    Raises:
        SweepError: the axis is a range without steps, or has too many values.
    """
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, optuna.distributions.IntDistribution | optuna.distributions.FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None or distribution.log:
        raise SweepError(f"{where}: a grid needs values, or a range with a step")
    count = int((high - low) / step + 1e-8) + 1
    if count > MOST_POINTS:
        raise SweepError(f"{where}: the grid has more than {MOST_POINTS} points; give another sampler")
    return [min(low + i * step, high) for i in range(count)]
