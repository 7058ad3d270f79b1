"""``manifest.json`` of a run folder: what was run there, from which code and on what, since when, and how it ended.

The file holds a list of *attempts*, oldest first: each start of a training adds one, whether it resumes the run or not.
While an attempt runs, its status is ``running``, and its process sets the file's time of change every `HEARTBEAT`
seconds. A killed process leaves both as they are. `Manifest.ended` therefore asks whether the process is still there,
where that can be known: in the same boot of the same machine. Elsewhere a heartbeat that is older than `SILENCE` is
taken for the end. The next attempt settles an attempt that was killed: ``interrupted``, at its last heartbeat.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from litscale.storage.files import DamagedError, read_json, write_atomically
from litscale.storage.provenance import Code

MANIFEST = "manifest.json"
DIFFS = "manifest_*.diff"
RUNNING, FINISHED, FAILED, INTERRUPTED = STATUSES = ("running", "finished", "failed", "interrupted")
HEARTBEAT = 30.0  # seconds
SILENCE = 300.0  # seconds; clocks of machines may differ, and network file systems keep times for a while


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        attempts: oldest first, at least one. Each holds ``status``, ``start`` and ``end`` (ISO 8601, UTC; the end is
            null while it runs), ``reason`` of a failure or interruption, ``wall_hours``, ``device_hours``, ``process``,
            and what the run recorded: ``command``, ``code``, ``packages``, ``hosts``, ``devices``, ``slurm``, ...
        heartbeat: the last time at which the newest attempt was alive, in seconds since the epoch.
    """

    attempts: list[dict[str, Any]]
    heartbeat: float

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``failed`` or ``interrupted``, as the newest attempt itself wrote it."""
        return self.attempts[-1]["status"]

    @property
    def ended(self) -> bool:
        """Whether nothing is running: the newest attempt says so, or its process is gone.

        A run that was interrupted may be resumed later, and then has not ended any more.
        """
        if self.status != RUNNING:
            return True
        process = self.attempts[-1]["process"]
        if process["boot"] is not None and process["boot"] == _boot():
            return _started(process["id"]) != process["started"]
        return time.time() - self.heartbeat > SILENCE


def read_manifest(run: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of a run folder.

    Args:
        run: the folder.

    Raises:
        FileNotFoundError: there is none: no training has begun here.
        ValueError: it is damaged; the message names it.
    """
    path = Path(run) / MANIFEST
    heartbeat = path.stat().st_mtime
    content = read_json(path)
    attempts = content.get("attempts") if isinstance(content, dict) else None
    if not isinstance(attempts, list) or not attempts or not all(map(_is_attempt, attempts)):
        raise DamagedError(f"{path}: damaged, or no manifest of a run")
    return Manifest(attempts, heartbeat)


def _is_attempt(value: Any) -> bool:
    """Return whether a value has all entries of an attempt that are read here."""
    if not isinstance(value, dict) or value.get("status") not in STATUSES or not isinstance(value.get("start"), str):
        return False
    process = value.get("process")
    return isinstance(process, dict) and process.keys() >= {"host", "id", "boot", "started"}


class ManifestWriter:
    """Adds an attempt to the manifest of a run folder and keeps it alive, until `end`.

    Only the owner of the folder (`litscale.storage.run_folders.lock_run_folder`) may have one.

    Attributes:
        folder: the run folder.
        attempt: what is recorded of this attempt, as values that JSON has.
    """

    def __init__(self, folder: Path, recorded: Mapping[str, Any], code: Sequence[Code] = (), devices: int = 1) -> None:
        """Write the attempt as ``running``.

        Args:
            folder: the run folder.
            recorded: what is recorded of the run, as values that JSON has.
            code: the repositories of the code; their diffs become files of their own, ``manifest_<hash>.diff``.
            devices: number of devices, of which the hours are counted.

        Raises:
            OSError: the manifest cannot be written.
        """
        self.folder = folder
        self._earlier = _settled(folder)
        self.attempt: dict[str, Any] = {
            "status": RUNNING,
            "start": _text(time.time()),
            "end": None,
            "reason": None,
            "wall_hours": None,
            "device_hours": None,
            "device_count": devices,
            **recorded,
            "code": [self._keep(each) for each in code],
            "process": {"host": socket.gethostname(), "id": os.getpid(), "boot": _boot(), "started": _started()},
        }
        self._write()
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="manifest", daemon=True).start()

    def forget_earlier(self) -> None:
        """Leave out the attempts before this one, because their results have been removed."""
        self._earlier = []
        self._write()
        named = {code["diff"] for code in self.attempt["code"]}
        for path in self.folder.glob(DIFFS):
            if path.name not in named:
                path.unlink()

    def end(self, status: str, reason: str | None = None, **recorded: Any) -> None:
        """Record how the attempt ended.

        Args:
            status: ``finished``, ``failed`` or ``interrupted``.
            reason: of a failure or an interruption.
            recorded: what else is known now, such as the step.

        Raises:
            OSError: the manifest cannot be written.
        """
        self._over.set()
        _close(self.attempt, time.time(), status, reason)
        self.attempt |= recorded
        self._write()

    def _write(self) -> None:
        content = {"attempts": [*self._earlier, self.attempt]}
        write_atomically(self.folder / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())

    def _beat(self) -> None:
        """Update the file's time of change until the attempt is over."""
        while not self._over.wait(HEARTBEAT):
            with suppress(OSError):  # what watches the run is worth less than the run
                os.utime(self.folder / MANIFEST)

    def _keep(self, code: Code) -> dict[str, Any]:
        """Write the diff of a repository, if there is one; equal ones share a file."""
        described: dict[str, Any] = {
            "folder": code.folder,
            "commit": code.commit,
            "new_files": list(code.new_files),
            "diff": None,
        }
        if code.diff:
            name = DIFFS.replace("*", sha256(code.diff).hexdigest()[:12])
            write_atomically(self.folder / name, code.diff)
            described |= {"diff": name, "diff_is_cut": code.cut}
        return described


def _settled(folder: Path) -> list[dict[str, Any]]:
    """Return the attempts so far; one that still runs is marked as killed, since the folder has another owner now."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return []
    except ValueError:
        (folder / MANIFEST).rename(folder / f"{MANIFEST}.damaged")
        return []
    *before, newest = manifest.attempts
    if newest["status"] == RUNNING:
        _close(newest, manifest.heartbeat, INTERRUPTED, "killed; the end is the last heartbeat")
    return [*before, newest]


def _close(attempt: dict[str, Any], end: float, status: str, reason: str | None) -> None:
    """Record how and when an attempt ended, and its hours."""
    hours = max(0.0, end - datetime.fromisoformat(attempt["start"]).timestamp()) / 3600
    attempt |= {"status": status, "end": _text(end), "reason": reason, "wall_hours": hours}
    attempt["device_hours"] = hours * attempt["device_count"]


def _text(seconds: float) -> str:
    """Return a time since the epoch as ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _boot() -> str | None:
    """Identify the boot and the name space in which process numbers hold; None if they are unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(process: int | str = "self") -> str | None:
    """Return when a process was started, in ticks since the boot; None if it is gone, or the system does not say."""
    try:
        # after the name, which is in brackets and may hold any character
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else fields[18]
