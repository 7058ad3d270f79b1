"""What the words of a command come to, before it is run elsewhere or later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import yaml

COMMAND = [sys.executable, "-m", "litscale"]


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """Return the whole config of ``fit``, ``validate``, ``test`` or ``predict``, as ``--print_config`` prints it.

    Args:
        words: the words after ``litscale``.

    Raises:
        ValueError: the command refuses the words; the message is the command's.
    """
    run = subprocess.run([*COMMAND, *words, "--print_config"], capture_output=True, text=True)
    if run.returncode:
        said = run.stderr.strip().rpartition("\n")[2]
        raise ValueError(said.partition(": error: ")[2] or f"{said} (exit status {run.returncode})")
    return yaml.safe_load(run.stdout)
