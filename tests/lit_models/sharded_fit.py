"""Training of LitVAR, LitFractal and LitVQVAE, whole or sharded, on one or two CPU processes. Run by test_sharding.py.

Usage: sharded_fit.py DEVICES FOLDER
"""

import sys
from functools import partial
from pathlib import Path

import torch
from conftest import ToyData, build
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader, DistributedSampler
from var_toys import LATE_DISCRIMINATOR, ToyImages, lit_var, lit_vqvae, quiet

from callbacks import GradientNorms, Samples
from datamodules.images.renderer import ImageRenderer
from lit_models import DiscriminatorConfig
from lit_models.generating import GeneratingModule
from litscale.music import RollFormat, RollRenderer


class Uneven:
    """Every process trains on each n-th item; of 16 it validates on 12 and on 4."""

    def items_of(self, items, training):
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(items, ranks, rank, shuffle=False) if training else None
        part = items if training or ranks == 1 else (items[:12], items[12:])[rank]
        return DataLoader(part, 8 // ranks if training else 4, sampler=sampler)


class Images(Uneven, ToyImages):
    renderer = ImageRenderer(1, 8)

    def train_dataloader(self):
        return self.items_of(self.items(), True)

    def val_dataloader(self):
        return self.items_of(self.items(), False)


class Rolls(Uneven, ToyData):
    renderer = RollRenderer(RollFormat("onset_hold", velocity_bins=1, lowest_pitch=60, pitches=8))

    def train_dataloader(self):
        return self.items_of([{"canvas": window} for window in self.canvas], True)

    def val_dataloader(self):
        return self.items_of([{"canvas": window} for window in self.canvas], False)


class Keep(Callback):
    """Keeps the mean losses over processes, and the share of the weights that is here."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
        self.losses.append(loss.item())
        weights = [weight for part in pl_module.trained() for weight in part.parameters()]
        here = sum(getattr(weight, "_local_tensor", weight).numel() for weight in weights)
        self.share = here / sum(weight.numel() for weight in weights)


def with_dead_codes(**options):
    """A tokenizer half of whose codes are far from all features."""
    module = lit_vqvae(**options)
    with torch.no_grad():
        module.network.quantizer.codebook.weight[module.network.vocab // 2 :] = 100.0
    return module


def run(devices, folder):
    """Fit each module, and once more from the middle; two processes recompute activations of VAR and tokenizer.

    The last module draws random numbers, so it does not do what it does on one process.
    """
    recomputing = {"grad_checkpointing": devices > 1}
    random = {
        "discriminator": DiscriminatorConfig(0.5, consistency=1.0, width=8, layers=1),
        "restart_every": 2,
        "scale_dropout": 0.5,
    }
    modules = {
        "var": (partial(lit_var, label_drop=0.0, **recomputing), Images),
        "fractal": (partial(build, ("ar", "ar")), Rolls),
        "vqvae": (partial(lit_vqvae, discriminator=LATE_DISCRIMINATOR, **recomputing), Images),
        "restarted": (partial(with_dead_codes, **random), Images),
    }
    for name, (make, data) in modules.items():
        for resumed in (None, folder / f"{name}_whole" / "step=2.ckpt"):
            strategy = "auto"
            if devices > 1:
                strategy = ModelParallelStrategy(devices, 1, save_distributed_checkpoint=False)
            module, kept, saved = make(), Keep(), folder / f"{name}_{'resumed' if resumed else 'whole'}"
            saver = ModelCheckpoint(saved, "{step}", every_n_train_steps=2, save_top_k=-1)
            watchers = [kept, saver, GradientNorms()]
            if isinstance(module, GeneratingModule):
                watchers.append(Samples(2, every_n_epochs=None, every_n_steps=2))
            options = {"devices": devices, "strategy": strategy, "callbacks": watchers, "max_steps": 4}
            options |= {"log_every_n_steps": 1, "default_root_dir": saved}
            options |= {"enable_checkpointing": True, "gradient_clip_val": 0.2, "num_sanity_val_steps": 1}
            trainer = quiet(folder, **options, val_check_interval=2, use_distributed_sampler=False)
            trainer.fit(module, datamodule=data(), ckpt_path=resumed, weights_only=True)
            metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
            result = {"losses": kept.losses, "metrics": metrics, "share": kept.share}
            torch.save(result, f"{saved}_{trainer.global_rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(int(sys.argv[1]), Path(sys.argv[2]))
