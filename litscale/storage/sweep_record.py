"""The record of a sweep: Optuna's journal of its trials and their scores, to which all of its processes write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.jsonl"  # in the folder of a sweep
STUDY = "sweep"
SETTINGS = "settings"  # attribute of a study: what the sweep was begun with
PRUNED, UNLOGGED = "pruned_at", "unlogged"  # attributes of a trial


def report(folder: Path, number: int, step: int, scores: dict[str, float]) -> bool:
    """Report the scores of a trial's validation; a validation that is repeated changes nothing.

    Args:
        folder: of the sweep.
        number: of the trial.
        step: of the training.
        scores: name -> value.

    Returns:
        Whether the sweep's pruner ends the trial here.

    Raises:
        ValueError: the sweep's metric is none of the scores.
    """
    # 1. whose trial this is
    import optuna

    study = open_study(folder)
    metric = study.user_attrs[SETTINGS]["metric"]
    trial = study.get_trials(deepcopy=False)[number]
    live = optuna.trial.Trial(study, trial._trial_id)
    # 2. its score
    if metric not in scores:
        live.set_user_attr(UNLOGGED, sorted(scores))
        raise ValueError(f"the sweep's metric: nothing is logged as {metric}; there are {', '.join(sorted(scores))}")
    if step not in trial.intermediate_values:
        live.report(scores[metric], step)
    # 3. whether it goes on
    if not live.should_prune():
        return False
    live.set_user_attr(PRUNED, step)
    return True


def open_study(folder: Path, direction: Literal["minimize", "maximize"] | None = None) -> optuna.Study:
    """Open the record of a sweep, or create it.

    Args:
        folder: of the sweep.
        direction: ``minimize`` or ``maximize`` to create a record; None to open an existing one.

    Raises:
        KeyError: there is no record to open.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.resolve() / JOURNAL)))
    if direction is not None:
        return optuna.create_study(storage=storage, study_name=STUDY, direction=direction)
    study = optuna.load_study(storage=storage, study_name=STUDY, sampler=optuna.samplers.RandomSampler())
    study.pruner = make(optuna.pruners, "Pruner", study.user_attrs[SETTINGS]["pruner"] or {"name": "nop"})
    return study


def make(module: Any, kind: str, options: dict[str, Any], **more: Any) -> Any:
    """Make a sampler or pruner of Optuna by its name.

    Args:
        module: of Optuna.
        kind: ``Sampler`` or ``Pruner``.
        options: its ``name``, such as ``tpe`` or ``successive_halving``, and its arguments.
        more: other arguments.

    Raises:
        ValueError: there is none of this name, or it has no such arguments; the message says which there are.
    """
    kinds = {each.removesuffix(kind).lower(): each for each in dir(module) if each.endswith(kind)}
    given = dict(options)
    name = str(given.pop("name")).replace("_", "").lower()
    if name not in kinds:
        raise ValueError(f"there is no {options['name']}; there are {', '.join(sorted(kinds))}")
    try:
        return getattr(module, kinds[name])(**given, **more)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{options['name']}: {error}") from error
