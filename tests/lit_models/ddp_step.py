"""One training step and a validation on one or two CPU processes. Run by test_ddp.py.

Usage: ddp_step.py DEVICES BATCH GENERATOR FOLDER
"""

import sys

import torch
from conftest import ToyData, build
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, DistributedSampler


class InTurn(ToyData):
    """Every process takes each n-th window: Lightning's own sampler would shuffle them."""

    def train_dataloader(self):
        """Windows of this process."""
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(self.canvas, ranks, rank, shuffle=False)
        return DataLoader([{"canvas": window} for window in self.canvas], self.batch_size, sampler=sampler)


class Keep(Callback):
    """Writes the mean loss over processes and the gradients that they agreed on."""

    def __init__(self, path):
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        """Keep the gradients."""
        self.gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Keep the loss."""
        self.loss = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")

    def on_fit_end(self, trainer, pl_module):
        """Write everything, with the validation's result."""
        if trainer.is_global_zero:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
            torch.save({"loss": self.loss, "gradients": self.gradients, "metrics": metrics}, self.path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    devices, batch, generator, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    data = InTurn(windows=14)  # 14 windows: with two processes the validation ends with smaller batches
    data.batch_size = batch
    # every patch is hidden in training, so that its masks, which differ from process to process, play no part
    module = build((generator, "ar"), mask_std=1e-6, nll_passes=2)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        val_check_interval=1,
        callbacks=[Keep(f"{folder}/step.pt")],
    )
    trainer.fit(module, datamodule=data)
