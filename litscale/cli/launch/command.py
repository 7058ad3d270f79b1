"""The command line of ``litscale launch``."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from litscale.cli.errors import CommandParser
from litscale.cli.imports import HOME
from litscale.cli.launch.script import Resources, check, script, sized
from litscale.cli.launch.snapshot import take
from litscale.cli.parsed import parsed
from litscale.storage.files import write_atomically
from litscale.storage.provenance import code_of

COMMANDS = ("fit", "validate", "test", "predict", "evaluate")
SCRIPT = "launch.sh"
DESCRIPTION = """Submit a command to SLURM as a job that is requeued when its time is up.

The script is RUN/launch.sh. The job runs from a copy of the present code, RUN/code-HASH, so later edits do not change
it. sbatch passes on the shell's environment, including WANDB_API_KEY."""


def main(words: Sequence[str]) -> None:
    """Write the script of a job and submit it.

    Args:
        words: the words after ``litscale launch``.
    """
    # 1. the options, and the command after --
    options = _parser()
    end = list(words).index("--") if "--" in words else len(words)
    given, rest = options.parse_known_args(words[:end])
    if rest and end == len(words):
        options.error(
            f"give {rest[0]} and all that follows it after --: litscale launch [options] -- {shlex.join(rest)}"
        )
    if rest:
        options.error(f"unrecognized arguments: {' '.join(rest)}")
    command = list(words[end + 1 :])
    if not command or command[0] not in COMMANDS:
        options.error(f"give a command after --: litscale launch [options] -- {'|'.join(COMMANDS)} ...")
    if given.nodes < 1 or given.gpus < 0:
        options.error(f"--nodes must be at least 1 and --gpus not negative, not {given.nodes} and {given.gpus}")
    resources = Resources(
        nodes=given.nodes,
        gpus=given.gpus,
        time=given.time,
        partition=given.partition,
        signal=given.signal,
        environment=tuple(given.env),
        options=tuple(given.sbatch),
    )
    try:
        # 2. the run, of which a mistake is better known before the job has waited
        check(resources, command)
        command = sized(command, resources)
        run = _run_folder(command)
        # 3. the code
        snapshots = [take(code, run) for code in code_of(Path.cwd(), HOME) if code.known]
        text = script(run, command, resources, snapshots)
    except ValueError as error:
        options.error(str(error))
    if given.dry:
        print(text, end="")
        return
    for snapshot in snapshots:
        print(f"Code: {snapshot.write(run)}")
    # 4. the job
    run.mkdir(parents=True, exist_ok=True)
    path = write_atomically(run / SCRIPT, text.encode())
    try:
        submitted = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    except FileNotFoundError:
        options.error(f"there is no sbatch here: on a machine of the cluster, sbatch {path}")
    if submitted.returncode:
        options.error(f"sbatch refuses {path}: {submitted.stderr.strip()}")
    job = submitted.stdout.strip().partition(";")[0]
    print(f"Job {job} of {path}; its output: {run / f'slurm-{job}.out'}")


def _run_folder(command: Sequence[str]) -> Path:
    """Return the run folder of a command.

    Raises:
        ValueError: the options of the command are refused.
    """
    if command[0] != "evaluate":
        return Path(parsed(command)["trainer"]["default_root_dir"])
    from lit_models.runs import CONFIG  # these take seconds
    from litscale.cli.evaluate.command import read_words

    run, _, stage = read_words(command[1:])
    if (run / CONFIG).is_file():  # else the training is yet to begin, too
        parsed(stage)
    return run


def _parser() -> CommandParser:
    made = CommandParser(
        "litscale launch",
        DESCRIPTION,
        usage="litscale launch [options] -- COMMAND ...",
    )
    made.add_argument("--nodes", type=int, default=1, help="number of nodes (1)")
    made.add_argument("--gpus", type=int, default=1, help="GPUs per node, each with one process; 0 for none (1)")
    made.add_argument("--time", help="time limit, such as 24:00:00; then the job saves and is requeued")
    made.add_argument("--partition", help="SLURM partition of the job")
    made.add_argument("--signal", default="SIGUSR1@90", help="signal and seconds before the time limit (SIGUSR1@90)")
    made.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set an environment variable of the job"
    )
    made.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="add an option of sbatch: --sbatch=--mem=100G"
    )
    made.add_argument("--dry", action="store_true", help="print the script without submitting it")
    return made
