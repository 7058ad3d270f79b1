"""Where a run comes from: its command, code, packages and job, as plain data for `litscale.storage.manifest`."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from litscale.storage.secrets import mask_code, mask_command

# Environment variables that are recorded; no others are, as they may hold secrets.
SLURM = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NTASKS",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
)
SNAPSHOT = ".litscale-snapshot.json"  # in a copy of a repository's files: the state that they are of
NO_REPOSITORY = "not a repository"
MOST_DIFF = 2**20  # bytes of a diff that are kept
MOST_NEW_FILES = 100  # files that git does not know, of which the names are kept
GIT_SECONDS = 30.0
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Code:
    """The state of a git repository.

    Attributes:
        folder: its top folder.
        commit: the full hash of HEAD, or the reason why there is none, such as ``not a repository``.
        diff: what the files that git knows differ in from HEAD, without secrets; at most `MOST_DIFF` bytes.
        cut: whether the diff is longer than that.
        new_files: names of files that git neither knows nor ignores; at most `MOST_NEW_FILES`.
    """

    folder: str
    commit: str
    diff: bytes = b""
    cut: bool = False
    new_files: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is a commit."""
        return _HASH.fullmatch(self.commit) is not None


def describe_run() -> dict[str, Any]:
    """Return command, folder, Python, platform and packages, and the job of SLURM if there is one."""
    return {
        "command": masked_command(),
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(_packages()),
        "slurm": slurm_job(os.environ),
    }


def masked_command() -> list[str]:
    """Return the words that this process was started with, without secrets."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name  # of `python -m litscale`
    return mask_command([name, *sys.argv[1:]])


def slurm_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those variables of `SLURM` that are set."""
    return {name: environment[name] for name in SLURM if name in environment}


@cache
def _packages() -> tuple[tuple[str, str], ...]:
    """Return names and versions of all packages that are installed, sorted."""
    version_of = {each.metadata["Name"]: each.version for each in distributions()}
    return tuple(sorted((name, version) for name, version in version_of.items() if name))


def code_of(*folders: Path) -> list[Code]:
    """Return the repositories that folders belong to, each of them once."""
    by_folder = {code.folder: code for code in map(_code, folders)}
    repositories = [code for code in by_folder.values() if code.commit != NO_REPOSITORY]
    return repositories or list(by_folder.values())[:1]


def record_snapshot(folder: Path, code: Code) -> None:
    """Record in a copy of a repository's files what it is a copy of."""
    (folder / SNAPSHOT).write_text(json.dumps(asdict(code) | {"diff": code.diff.decode(errors="replace")}))


@cache
def _code(folder: Path) -> Code:
    """Return the state of a folder's repository when this process first asks, or what a snapshot says."""
    for parent in (folder, *folder.parents):
        if (parent / SNAPSHOT).is_file():
            kept = json.loads((parent / SNAPSHOT).read_text())
            return Code(**kept | {"diff": kept["diff"].encode(), "new_files": tuple(kept["new_files"])})
    try:
        return _repository(Path(git(folder, "rev-parse", "--show-toplevel").decode().strip()))
    except FileNotFoundError:
        return Code(str(folder), "git is not installed")
    except subprocess.TimeoutExpired:
        return Code(str(folder), f"git took more than {GIT_SECONDS:g} seconds")
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").partition("\n")[0]
        return Code(str(folder), NO_REPOSITORY if "not a git repository" in reason else reason)


@cache
def _repository(top: Path) -> Code:
    """Return the state of a repository by its top folder; raises what git's commands do."""
    commit = git(top, "rev-parse", "HEAD").decode().strip()
    diff = mask_code(git(top, "diff", "HEAD", "--no-color", "--no-ext-diff").decode(errors="replace")).encode()
    new = git(top, "ls-files", "--others", "--exclude-standard", "-z").decode(errors="replace").split("\0")
    names = tuple(name for name in new[:MOST_NEW_FILES] if name)
    return Code(str(top), commit, diff[:MOST_DIFF], len(diff) > MOST_DIFF, names)


def git(folder: Path, *words: str) -> bytes:
    """Run a git command in a folder and return what it prints, in English and without writing to the repository."""
    environment = os.environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, env=environment, capture_output=True, check=True, timeout=GIT_SECONDS).stdout
