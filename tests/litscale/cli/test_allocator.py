"""Memory of freed arrays stays with the process, so that the next ones need not fetch it."""

import argparse
import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI

from litscale.cli import lightning_cli
from litscale.cli.evaluate.command import EvaluateCLI

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

if sys.argv[1] == "keep":
    from litscale.cli.allocator import keep_freed_memory  # seconds to import
    keep_freed_memory()
array = np.ones(2**26, np.uint8)
used = megabytes()
del array
print(used - megabytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)
def test_freed_memory_is_kept():
    given_back = [
        float(subprocess.check_output([sys.executable, "-c", PROGRAM, word], text=True)) for word in ("keep", "not")
    ]
    assert given_back[0] < 1
    assert given_back[1] > 60


def test_every_command_with_a_trainer_begins_with_it(monkeypatch):
    begun = []
    monkeypatch.setattr(lightning_cli, "keep_freed_memory", lambda: begun.append("memory"))
    monkeypatch.setattr(LightningCLI, "__init__", lambda self, **options: begun.append("command"))
    lightning_cli.train_or_evaluate(["fit"])
    lightning_cli.bench(["fractal"])
    EvaluateCLI(Path("run"), argparse.Namespace(), ["validate"])
    assert begun == ["memory", "command"] * 3
