"""A killed tokenizer run, with discriminator, EMA and restarts of codes, goes on as if nothing had happened."""

import os
import signal
from pathlib import Path

import pytest
import torch
from var_toys import same

CONFIG = Path(__file__).parents[2] / "configs" / "digits" / "vqvae.yaml"
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


@pytest.mark.slow
def test_killed_in_mid_epoch(tmp_path, litscale):
    (tmp_path / "killer.py").write_text(KILLER)
    saver = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    common = ["fit", "--config", CONFIG, "--trainer.max_steps", 12, "--trainer.limit_val_batches", 0]
    common += ["--model.adversary.weight", 0.5, "--model.adversary.width", 8, "--model.adversary.layers", 2]
    common += ["--model.adversary.consistency", 1.0, "--model.restart_every", 3, saver]
    common += ["--trainer.callbacks.every_n_train_steps", 5, "--trainer.callbacks.filename", "{step}"]
    common += ["--trainer.callbacks.save_top_k", -1]
    litscale(*common, "--trainer.default_root_dir", tmp_path / "whole")
    broken = [*common, "--trainer.default_root_dir", tmp_path / "broken"]
    killer = ["--trainer.callbacks+=killer.Killer", "--trainer.callbacks.step=8"]
    killed = litscale(*broken, *killer, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    litscale(*broken, "--ckpt_path", tmp_path / "broken" / "checkpoints" / "step=5.ckpt")
    folders = [tmp_path / name / "checkpoints" for name in ("whole", "broken")]
    ends = [torch.load(folder / "step=10.ckpt", weights_only=True) for folder in folders]
    same(*ends, ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state", "current_model_state"))
    assert any(name.startswith("discriminator") for name in ends[0]["state_dict"])
