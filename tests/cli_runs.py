"""Runs of the command line: what configs come to, runs that are killed, and what is predicted."""

import contextlib
import io
import json
import os
import signal
import sys
import time
import traceback
from functools import cache
from typing import Any, ClassVar

import pytest
import yaml
from lightning.pytorch import Callback

from litscale.cli.main import main


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


class Killer(Callback):
    """Kills its own process after a number of steps."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Kill it."""
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(*arguments, **environment):
    """Run the command line in a fork of this process, which has imported everything.

    Args:
        arguments: of the command line.
        environment: variables of the fork.

    Returns:
        The id of the new process, which ends with the status of the command line.
    """
    child = os.fork()
    if not child:
        status = 1
        try:
            os.environ.update(environment)
            main(list(map(str, arguments)))
            status = 0
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            if "wandb" in sys.modules:  # whose handler of an interpreter's exit writes what is left
                sys.modules["wandb"].teardown()
            os._exit(status)
    return child


def status_of(child, seconds=120):
    """Wait for a fork, and return its status, or minus the signal that ended it; after so many seconds kill it."""
    for _ in range(20 * seconds):
        if (ended := os.waitpid(child, os.WNOHANG)) != (0, 0):
            return os.waitstatus_to_exitcode(ended[1])
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise TimeoutError(f"process {child} has not ended in {seconds} seconds: {os.waitpid(child, 0)}")


def killed(step, *arguments):
    """Run the command line in a fork, and kill it after a step."""
    child = forked(*arguments, "--trainer.callbacks+=cli_runs.Killer", f"--trainer.callbacks.step={step}")
    assert status_of(child) == -signal.SIGKILL


def few_samples(path, count=20):
    """Return options with which the callbacks of a shipped config compare so few generated samples."""
    callbacks = shipped("fit", path)["trainer"]["callbacks"]
    for callback in callbacks:
        if "num_samples" in callback.get("init_args", {}):
            callback["init_args"]["num_samples"] = count
    return ["--trainer.callbacks", json.dumps(callbacks)]


class Beginnings(Callback):
    """Keeps the weights with which trainings begin."""

    seen: ClassVar[list[dict[str, Any]]] = []

    def on_train_start(self, trainer, pl_module):
        """Keep a copy."""
        self.seen.append({name: value.clone() for name, value in pl_module.state_dict().items()})


class Predictions(Callback):
    """Keeps the batches of ``predict``, and what was made of them."""

    seen: ClassVar[list[tuple[dict[str, Any], dict[str, Any]]]] = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        """Keep them."""
        self.seen.append((batch, outputs))
