"""The points of trials: a function of the settings, the trial's number and, for samplers that learn, earlier scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from litscale.cli.sweep.spec import SweepSpec
from litscale.storage.sweep_record import make


def needed(spec: SweepSpec, number: int) -> int:
    """Return how many of the first trials must have ended before the point of a trial is known."""
    return 0 if spec.planned else max(0, number - spec.jobs + 1)


def propose(spec: SweepSpec, earlier: Sequence[FrozenTrial]) -> FrozenTrial:
    """Return the next trial, which is marked as running.

    The point depends on the settings, the number of trials so far and the scores of the first `needed` of them, never
    on the order in which trials end: a sweep that was killed is resumed with the points that it would have had.

    Args:
        spec: the sweep.
        earlier: the trials so far; the first `needed` of them have ended.
    """
    number = len(earlier)
    if spec.sampler_options["name"] == "grid":
        return _running(spec, spec.points[number])
    # 1. what the sampler sees: what must have ended, and of the others that they run
    seen = list(earlier[: needed(spec, number)])
    seen += [_running(spec, trial.params, trial.system_attrs) for trial in earlier[len(seen) :]]
    seed = int.from_bytes(sha256(f"{spec.seed} {number}".encode()).digest()[:4], "little")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = make(optuna.samplers, "Sampler", spec.sampler_options, seed=seed)
    # 2. a copy of the sweep, which the sampler may write to
    copy = optuna.create_study(direction=direction(spec), sampler=sampler)
    copy.add_trials(seen)
    asked = copy.ask(spec.distributions)
    return _running(spec, asked.params, copy.get_trials(deepcopy=False)[-1].system_attrs)


def direction(spec: SweepSpec) -> Literal["minimize", "maximize"]:
    """Return Optuna's word for the mode."""
    return "minimize" if spec.mode == "min" else "maximize"


def _running(spec: SweepSpec, params: dict, attributes: dict | None = None) -> FrozenTrial:
    """Return a running trial at a point, which can be recorded in one write, so that its record is whole or absent."""
    made = create_trial(
        state=TrialState.RUNNING, params=params, distributions=spec.distributions, system_attrs=attributes or {}
    )
    made.datetime_start = datetime.now()
    return made
