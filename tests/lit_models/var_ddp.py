"""Training steps of LitVQVAE and LitVAR and a cache of tokens, on one or two CPU processes. Run by test_var_ddp.py.

Usage: var_ddp.py DEVICES FOLDER
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback
from var_toys import ToyImages, lit_var, lit_vqvae, quiet

from callbacks import TokenWriter
from datamodules import DigitsDataModule, TokenizationDataModule
from lit_models import DiscriminatorConfig


class Keep(Callback):
    """Writes gradients, losses, buffers and metrics of each process."""

    def __init__(self, path):
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        """Keep the gradients of the first step."""
        if trainer.global_step == 0:
            named = pl_module.named_parameters()
            self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Keep the mean loss over processes, and the first step's counts."""
        if batch_idx == 0:
            self.loss = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
            self.buffers = {name: value.clone() for name, value in pl_module.named_buffers()}

    def on_fit_end(self, trainer, pl_module):
        """Write everything."""
        kept = {"loss": self.loss, "gradients": self.gradients, "buffers": self.buffers}
        kept["metrics"] = {key: float(value) for key, value in trainer.callback_metrics.items()}
        kept["state"] = pl_module.state_dict()
        torch.save(kept, f"{self.path}_{trainer.global_rank}.pt")


def run(devices, folder):
    """All three, with as many images in a step for any number of processes."""
    options = {"devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
    modules = {
        "vqvae": lit_vqvae(discriminator=DiscriminatorConfig(weight=0.5, width=8, layers=1), vocab=64, restart_every=2),
        "var": lit_var(label_drop=0.0),
    }
    for name, module in modules.items():
        steps = {"max_steps": 2, "val_check_interval": 2, "callbacks": [Keep(folder / name)]}
        data = ToyImages(images=28, batch_size=8 // devices)
        quiet(folder, **options, **steps).fit(module, datamodule=data)
    data = TokenizationDataModule(DigitsDataModule(size=8, batch_size=32, shift=1), batch_size=400)
    writer = TokenWriter(str(folder / "tokens"))
    tokenizer = lit_vqvae().eval()
    quiet(folder, **options, callbacks=[writer]).predict(tokenizer, datamodule=data, return_predictions=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(int(sys.argv[1]), Path(sys.argv[2]))
