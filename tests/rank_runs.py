"""Runs of test programs that start a second process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def run(script: Path, folder: Path, *arguments: object) -> str:
    """Run a program of the tests.

    Args:
        script: the program; its last argument is the folder.
        folder: is made, and is where the program runs.
        arguments: of the program, before the folder.

    Returns:
        What was printed.
    """
    folder.mkdir(exist_ok=True)
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    done = subprocess.run(
        [sys.executable, *map(str, (script, *arguments, folder))],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def two_ranks(script: Path, folder: Path, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    """Run a program that notes what each of its two processes saw.

    Args:
        script: the program; its last argument is the folder.
        folder: is made, and is where the program runs and writes ``rank_0.json`` and ``rank_1.json``.
        arguments: of the program, before the folder.

    Returns:
        The notes of both processes, and what was printed.
    """
    printed = run(script, folder, *arguments)
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in (0, 1)], printed
