"""Corrections to Lightning's record of progress, for checkpoints written at moments that Lightning does not expect."""

from __future__ import annotations

from typing import Any

# what Lightning takes for an interrupted validation: a batch that began and did not end
INTERRUPTED = {"ready": 1, "started": 1, "processed": 0, "completed": 0}


def mark_validation_interrupted(fit_loop: dict[str, Any]) -> None:
    """Mark a checkpoint so that a run resumed from it begins with the validation that was due.

    Args:
        fit_loop: ``loops.fit_loop`` of the checkpoint; changed in place.
    """
    progress = fit_loop["epoch_loop.val_loop.batch_progress"]
    progress["total"].update(INTERRUPTED)
    progress["current"].update(dict.fromkeys(progress["current"], 0))


def is_validation_interrupted(fit_loop: dict[str, Any]) -> bool:
    """Return whether `mark_validation_interrupted` has marked a checkpoint, given its ``loops.fit_loop``."""
    return fit_loop["epoch_loop.val_loop.batch_progress"]["total"].items() >= INTERRUPTED.items()


def remove_unfinished_batches(fit_loop: dict[str, Any], finished: int) -> None:
    """Remove the batches after the last optimiser step from a checkpoint's record of progress.

    Args:
        fit_loop: ``loops.fit_loop`` of the checkpoint; changed in place.
        finished: number of batches of all epochs that were trained on up to that step.

    Raises:
        ValueError: a data loader records its position in a form that cannot be set back.
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    batches = progress["total"]["ready"] - finished
    if batches <= 0:
        return
    for count in (progress["total"], progress["current"]):
        count.update(dict.fromkeys(("ready", "started", "processed", "completed"), count["ready"] - batches))
    progress["is_last_batch"] = False
    for place in fit_loop["state_dict"].get("combined_loader", ()):
        if "batches" not in place:
            raise ValueError("the data loader was a batch ahead")
        place["batches"] -= batches
