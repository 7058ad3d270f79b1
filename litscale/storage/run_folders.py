"""Run folders: one run owns a folder at a time, and a new run does not take the place of an old one unnoticed."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from litscale.storage.provenance import masked_command

CHECKPOINTS = "checkpoints"
LOCK = ".lock"
OWNER = ".owner.json"
REPORT = "report.html"
# What a run and its evaluations write, besides its checkpoints and config.yaml.
OUTCOMES = (
    "config_from_step_*.yaml",
    "scores_*",
    "music_*",
    "quality_*",
    "decode_*",
    "hpc_ckpt_*.ckpt",
    ".lr_find_*.ckpt",
    ".scale_batch_size_*.ckpt",
    "bench_*",
    "masks.png",
    REPORT,
)
EVALUATIONS = "evaluations"
EXPORT = "export"
OUTCOME_FOLDERS = ("predictions", "samples", EVALUATIONS, EXPORT)


class RunFolderError(ValueError):
    """A run folder that this run must not write to; the message names the folder and the ways out."""


def lock_run_folder(folder: Path) -> FileLock:
    """Lock a run folder for this process; the operating system unlocks it when the process ends or is killed.

    Args:
        folder: the run folder; it is made if it is missing.

    Returns:
        The lock, to be released at the end of the run.

    Raises:
        RunFolderError: another process has locked the folder; the message says which.
        OSError: the folder cannot be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"trainer.default_root_dir: cannot write there ({error.strerror}); give another"
        raise OSError(error.errno, text, str(folder)) from error
    lock = _acquired(folder)
    owner = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "user": _user(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(masked_command()),
    }
    (folder / OWNER).write_text(json.dumps(owner))  # only for the message above, so a torn file does no harm
    return lock


def _acquired(folder: Path) -> FileLock:
    """Lock a run folder and return the lock; raises as `lock_run_folder` does."""
    lock = FileLock(folder / LOCK)
    try:
        # Processes of one run that are all about to be refused may look at the same moment.
        lock.acquire(timeout=1)
    except Timeout as error:
        raise RunFolderError(
            f"{folder} is in use by {_owner(folder)}: wait for its end, stop it, or give another folder as "
            "--trainer.default_root_dir"
        ) from error
    return lock


def _user() -> str:
    """Return the name of the user; their number in a container that knows no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _owner(folder: Path) -> str:
    """Describe the process that holds the lock, as far as it is known."""
    try:
        owner = json.loads((folder / OWNER).read_text())
        return f"process {owner['process']} on {owner['host']} ({owner['command']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def refuse_used_folder(folder: Path, resumed: str | os.PathLike[str] | None, locked: bool = True) -> None:
    """Refuse to start a run in a folder that holds the checkpoints of another one.

    Args:
        folder: the run folder.
        resumed: the checkpoint that the run resumes, if any.
        locked: whether this run has locked the folder. If not, the other one may still be training there, and then the
            message names it, because neither resuming nor replacing it is possible.

    Raises:
        RunFolderError: there are checkpoints in the folder, and the run resumes none of them.
    """
    held = sorted((folder / CHECKPOINTS).glob("*.ckpt"))
    if not held or goes_on(folder, resumed):
        return
    if not locked:
        with suppress(OSError):  # of a folder that is not to be written to
            _acquired(folder).release()
    raise RunFolderError(
        f"{folder} holds the checkpoints of another run ({', '.join(path.name for path in held[:4])}): resume that run "
        "with --ckpt_path auto, replace it and all its results with --overwrite true, or give another folder as "
        "--trainer.default_root_dir"
    )


def goes_on(folder: Path, resumed: str | os.PathLike[str] | None) -> bool:
    """Return whether a run that resumes a checkpoint continues the run of a folder."""
    return resumed is not None and Path(resumed).resolve().parent in (folder.resolve(), folder.resolve() / CHECKPOINTS)


def clear_run_folder(folder: Path) -> None:
    """Remove the checkpoints and results of an earlier run; logs stay, as loggers number theirs.

    Args:
        folder: the run folder. Only what runs are known to write is removed.
    """
    for path in [*(folder / CHECKPOINTS).glob("*.ckpt"), *(path for name in OUTCOMES for path in folder.glob(name))]:
        if path.is_dir():  # a sharded checkpoint
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in OUTCOME_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def checkpoint_in(folder: Path, word: str) -> Path:
    """Return the path of a run's ``last`` or ``best`` checkpoint."""
    return folder / CHECKPOINTS / f"{word}.ckpt"
