"""A killed run goes on as if nothing had happened."""

import signal

import pytest
import torch

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


def leaves(value, path=""):
    """Flat view of a nested checkpoint."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{key}")
    else:
        yield path, value


def test_the_command_line_wins_over_the_checkpoint(tmp_path, litscale, config):
    litscale("fit", "--config", config, "--trainer.max_steps", 4)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"][0]
    options = ["--model.optimization.lr", 0.5, "--model.optimization.schedule", "constant", "--trainer.max_steps", 8]
    litscale("fit", "--config", config, "--ckpt_path", last, *options, "--model.optimization.weight_decay", 0.25)
    after = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert before["initial_lr"] == 0.003
    assert [group["lr"] for group in after] == [0.5, 0.5]
    assert [group["weight_decay"] for group in after] == [0.25, 0.0]


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_mid_epoch(tmp_path, litscale, config, workers):
    (tmp_path / "killer.py").write_text(KILLER)
    common = ["fit", "--config", config, "--data.num_workers", workers]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    litscale(*common, "--trainer.default_root_dir", whole)
    killed = litscale(
        *common,
        "--trainer.default_root_dir",
        broken,
        "--trainer.callbacks+=killer.Killer",
        "--trainer.callbacks.step=7",
        check=False,
        env={**__import__("os").environ, "PYTHONPATH": str(tmp_path)},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    saved = torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # an epoch has three steps: this is in the middle of the second
    litscale(*common, "--trainer.default_root_dir", broken, "--ckpt_path", broken / "checkpoints" / "last.ckpt")
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, broken)]
    assert [end["global_step"] for end in ends] == [12, 12]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state"):
        values = [dict(leaves(end[part])) for end in ends]
        assert values[0].keys() == values[1].keys()
        assert values[0]
        for path, value in values[0].items():
            other = values[1][path]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, f"{part}{path}"
