"""Runs of test programs on one process or two.

The processes are forks of the one that tests: importing torch, Lightning and the project takes longer than most
programs.
"""

import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from multiprocessing import connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lightning.pytorch.utilities import rank_zero_only

ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
SECONDS = 900
forks = multiprocessing.get_context("fork")


def run(script: Path, folder: Path, *arguments: object, ranks: int = 1) -> str:
    """Run a program of the tests.

    Args:
        script: the program; its last argument is the folder.
        folder: is made, and is where the program runs.
        arguments: of the program, before the folder.
        ranks: the number of processes; several find each other by the variables that ``torchrun`` sets, too.

    Returns:
        What was printed, by one rank after the other.
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as printed, patch.dict(os.environ, ENVIRONMENT):
        processes = []
        for rank in range(ranks):
            own = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)} if ranks > 1 else {}
            words = [str(word) for word in (script, *arguments, folder)]
            # a seed that an earlier test of this process left behind would be the program's
            environment = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"} | own
            processes.append(forks.Process(target=_program, args=(words, environment, f"{printed}/{rank}")))
            processes[-1].start()
        try:
            running = {process.sentinel: process for process in processes}
            while running and (ended := connection.wait(running, SECONDS)):
                if any(running.pop(sentinel).exitcode for sentinel in ended):
                    break  # the others may wait for it for ever
        finally:
            for process in processes:
                process.join(5)  # and say what they think of it
                process.kill()
                process.join()
        texts = {stream: [Path(f"{printed}/{rank}.{stream}").read_text() for rank in range(ranks)] for stream in (1, 2)}
    assert [process.exitcode for process in processes] == [0] * ranks, "\n".join(text[-4000:] for text in texts[2])
    return "".join(texts[1])


def two_ranks(script: Path, folder: Path, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    """Run a program that notes what each of its two processes saw.

    Args:
        script: the program; its last argument is the folder.
        folder: is made, and is where the program runs and writes ``rank_0.json`` and ``rank_1.json``.
        arguments: of the program, before the folder.

    Returns:
        The notes of both processes, and what was printed.
    """
    printed = run(script, folder, *arguments, ranks=2)
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in (0, 1)], printed


def _program(words: list[str], environment: dict[str, str], printed: str) -> None:
    """The program, in a fork; its output goes to ``<printed>.1`` and its errors to ``<printed>.2``."""
    for stream in (1, 2):
        os.dup2(os.open(f"{printed}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))  # not those of the tests
    os.environ.clear()
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))
    os.chdir(words[-1])
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")
