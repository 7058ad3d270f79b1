"""Runs of the command line: what configs come to, runs that are killed, and what is predicted."""

import contextlib
import io
import os
import signal
from functools import cache
from typing import Any, ClassVar

import pytest
import yaml
from lightning.pytorch import Callback

from litscale.cli.main import main

KILLER = '''
import os, signal
from lightning.pytorch import Callback


class Killer(Callback):
    """Kills its own process after a number of steps."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
'''


def printed(command, *paths):
    """What ``--print_config`` says of configs, the later ones over the earlier."""
    return yaml.safe_load(_printed(command, *paths))


def shipped(command, *paths):
    """The same of configs that no test changes, which are parsed once for all tests."""
    return yaml.safe_load(_printed_once(command, *paths))


def _printed(command, *paths):
    out = io.StringIO()
    layers = [word for path in paths for word in ("--config", str(path))]
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main([command, *layers, "--print_config"])
    assert stop.value.code in (0, None)
    return out.getvalue()


_printed_once = cache(_printed)


def killed(litscale, folder, step, *arguments):
    """Run the command line, and kill it after a step.

    Args:
        litscale: the fixture.
        folder: for the killer's code.
        step: after which the process is killed.
        arguments: of the command line.
    """
    (folder / "killer.py").write_text(KILLER)
    killer = ["--trainer.callbacks+=killer.Killer", f"--trainer.callbacks.step={step}"]
    # one thread, as tests have: sums of two differ in their last bits
    own = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    run = litscale(*arguments, *killer, check=False, env=os.environ | own)
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]


class Predictions(Callback):
    """Keeps the batches of ``predict``, and what was made of them."""

    seen: ClassVar[list[tuple[dict[str, Any], dict[str, Any]]]] = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        """Keep them."""
        self.seen.append((batch, outputs))
