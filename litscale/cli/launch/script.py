"""The script that ``sbatch`` gets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litscale.cli.launch.snapshot import Snapshot
from litscale.storage.secrets import mask_command

SIZES = ("--trainer.num_nodes", "--trainer.devices")  # which the resources give
NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that a job asks of SLURM.

    Attributes:
        nodes: number of nodes.
        gpus: number of GPUs of each node, each with a process of its own; 0 for one process of a node without a GPU.
        time: time limit, as ``sbatch`` takes it; None for the partition's.
        partition: name of the partition; None for the default one.
        signal: ``NAME@SECONDS``, a signal that the processes get so many seconds before the time limit.
        environment: variables, each as ``NAME=VALUE``.
        options: other options of ``sbatch``, such as ``--mem=100G``.
    """

    nodes: int = 1
    gpus: int = 1
    time: str | None = None
    partition: str | None = None
    signal: str = "SIGUSR1@90"
    environment: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def check(resources: Resources, words: Sequence[str]) -> None:
    """Refuse words that would write a secret into the script, are malformed, or contradict the resources.

    Raises:
        ValueError: a word of the command or an option of the job is such a word.
    """
    for given in resources.environment:
        name, equals, _ = given.partition("=")
        if not equals or not NAME.fullmatch(name):
            raise ValueError(f"--env {mask_command([given])[0]}: give NAME=VALUE")
        if mask_command([given]) != [given]:
            raise ValueError(
                f"--env {name}: secrets must not be written to a file: export {name} in the shell, whose "
                "environment sbatch passes on"
            )
    for options in (words, resources.options):
        if mask_command(options) != list(options):
            raise ValueError(
                f"secrets must not be written to a file: {shlex.join(mask_command(options))}; give it in the "
                "environment, which sbatch passes on, as WANDB_API_KEY"
            )
    if any("\n" in word for word in (*resources.options, resources.time or "", resources.partition or "")):
        raise ValueError("an option of sbatch must be one line")
    for word in words:
        if word.partition("=")[0] in SIZES:
            raise ValueError(f"{word.partition('=')[0]} is given by --nodes and --gpus of litscale launch")


def sized(words: Sequence[str], resources: Resources) -> list[str]:
    """Return the words of a command, with options for the number of nodes and devices added."""
    return [*words, f"--trainer.num_nodes={resources.nodes}", f"--trainer.devices={max(1, resources.gpus)}"]


def script(run: Path, words: Sequence[str], resources: Resources, snapshots: Sequence[Snapshot]) -> str:
    """Return the script of a job, which holds all that the job depends on except the environment.

    Args:
        run: the run folder.
        words: words of the command after ``litscale``.
        resources: resources of the job.
        snapshots: snapshots of the code, where Python looks for modules first.
    """
    run = run.resolve()
    # 1. what the job asks for
    asked = [
        f"--job-name={run.name}",
        f"--nodes={resources.nodes}",
        f"--ntasks-per-node={max(1, resources.gpus)}",
        *([f"--gpus-per-node={resources.gpus}"] if resources.gpus else []),
        *([f"--time={resources.time}"] if resources.time else []),
        *([f"--partition={resources.partition}"] if resources.partition else []),
        f"--signal={resources.signal}",
        "--requeue",
        "--open-mode=append",
        f"--output={run}/slurm-%j.out",
    ]
    lines = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(word)}" for word in asked)]
    lines += [f"#SBATCH {word}" for word in resources.options]
    # 2. where it runs, and with which code
    for given in resources.environment:
        name, _, value = given.partition("=")
        lines.append(f"export {name}={shlex.quote(value)}")
    if snapshots:
        folders = [folder for each in snapshots for folder in _folders(each, run)]
        lines.append(f"export PYTHONPATH={shlex.quote(':'.join(map(str, folders)))}${{PYTHONPATH:+:$PYTHONPATH}}")
    lines.append(f"cd {shlex.quote(str(Path.cwd()))}")
    # 3. the command; -P, as the working directory has the code as it is by then
    command = [_frozen(word, previous, run, snapshots) for previous, word in zip(("", *words), words, strict=False)]
    lines.append(f"exec srun {shlex.join([sys.executable, '-P', '-m', 'litscale', *command])}")
    return "\n".join(lines) + "\n"


def _folders(snapshot: Snapshot, run: Path) -> list[Path]:
    """Return the folders of modules: a snapshot's copies of the working directory and of the repository's top."""
    here = Path.cwd().resolve()
    top = snapshot.folder(run)
    if here != snapshot.top and here.is_relative_to(snapshot.top):
        return [top / here.relative_to(snapshot.top), top]
    return [top]


def _frozen(word: str, previous: str, run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Return a word of the command; the path of a config is replaced by that of its copy in a snapshot."""
    option, equals, value = word.partition("=")
    if option in ("--config", "-c") and equals:
        return f"{option}={_frozen(value, option, run, snapshots)}"
    if previous not in ("--config", "-c") or not Path(word).is_file():
        return word
    copies = (snapshot.inside(Path(word), run) for snapshot in snapshots)
    return str(next((copy for copy in copies if copy is not None), word))
