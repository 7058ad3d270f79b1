"""Toy images and small modules for the tests of VAR's training."""

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, DistributedSampler

from datamodules import DigitsDataModule
from datamodules.images.source import ImagesInMemory, ImageSource
from lit_models import DiscriminatorConfig, LitVAR, LitVQVAE, Optimization
from litscale.models.var import VAR, VQVAE
from litscale.models.var.quantizer import Quantizer

OF_VQVAE = (
    "patch_nums",
    "entropy",
    "simvq",
    "rotation",
    "vocab",
    "dim",
    "channels",
    "multipliers",
    "in_channels",
    "scale_dropout",
    "beta",
    "grad_checkpointing",
)
OF_VAR = (
    "num_classes",
    "depth",
    "width",
    "heads",
    "label_drop",
    "grad_checkpointing",
    "dropout",
    "shared_aln",
    "attention",
)
LATE_DISCRIMINATOR = DiscriminatorConfig(0.5, start_step=1, width=8, layers=1)


class ToyImages(LightningDataModule):
    """Random 8x8 grey images of three classes, in order; every process takes each n-th."""

    canvas_shape = (1, 8, 8)
    alphabet = 256
    num_classes = 3

    def __init__(self, images=16, batch_size=4):
        super().__init__()
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randint(0, 256, (images, 1, 4, 4), dtype=torch.uint8, generator=generator)
        self.canvas = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        self.label = torch.arange(images) % 3

    def items(self):
        """One dict for each image."""
        return [{"canvas": canvas, "label": label} for canvas, label in zip(self.canvas, self.label, strict=True)]

    def train_dataloader(self):
        """All images."""
        ranks = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        return DataLoader(
            self.items(), self.batch_size, sampler=DistributedSampler(self.items(), *ranks, shuffle=False)
        )

    val_dataloader = test_dataloader = train_dataloader


class First(ImageSource):
    """The first images of another source."""

    channels = 1

    def __init__(self, source, count):
        self.source, self.count = source, count

    def open(self, split, crop):
        """So many of them."""
        images = self.source.open(split, crop)
        return ImagesInMemory(images.canvases[: self.count], images.labels[: self.count])


def few_digits():
    """Shifted digits, 15 batches of 4 in an epoch."""
    data = DigitsDataModule(size=8, batch_size=4, shift=1)
    data.source = First(data.source, 60)
    return data


def quantizer(**options):
    """A small quantiser with codes of about one."""
    torch.manual_seed(0)
    made = Quantizer(**{"patch_nums": (1, 2, 4), "vocab": 16, "dim": 4} | options)
    if not made.simvq:
        torch.nn.init.normal_(made.codebook.weight)
    return made


def vqvae(**options):
    """A small tokenizer that counts as trained; its codes are as large as its features."""
    torch.manual_seed(0)
    small = {"patch_nums": (1, 2, 4), "vocab": 16, "dim": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1}
    made = VQVAE(**small | {"in_channels": 1} | options)
    if not made.quantizer.simvq:
        torch.nn.init.normal_(made.quantizer.codebook.weight, std=0.3)
    made.quantizer.record_hits(torch.ones_like(made.quantizer.hits))
    return made


def lit_vqvae(**options):
    """A small LitVQVAE for :class:`ToyImages`."""
    network = vqvae(**{name: options.pop(name) for name in OF_VQVAE if name in options})
    return LitVQVAE(network, **{"optimization": Optimization(lr=1e-2)} | options)


def lit_var(tokenizer=None, **options):
    """A small LitVAR for :class:`ToyImages`; its head is not flat, so that all tokens matter."""
    network = {"num_classes": 3, "depth": 2, "width": 16, "heads": 2}
    network |= {name: options.pop(name) for name in OF_VAR if name in options}
    torch.manual_seed(1)
    model = VAR(tokenizer or vqvae(), **network)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return LitVAR(model, **{"optimization": Optimization(lr=1e-2)} | options)


def quiet(folder, **options):
    """A trainer on the CPU that says nothing."""
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    silent |= {"accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(**silent | {"default_root_dir": folder} | options)


class Outputs(Callback):
    """Keeps the losses and reports of training steps."""

    def __init__(self):
        self.losses, self.reports = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Keep them."""
        self.losses.append(outputs["loss"].item())
        self.reports.append(outputs["report"])


class Stop(Callback):
    """Ends a run as a kill would: nothing is saved after it."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Raise at a step."""
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def resumed(folder, make, stop=6, steps=10, callbacks=lambda: []):
    """The last checkpoints of a whole run, and of one that was stopped and resumed from the step before.

    A step takes two batches, so that the last two are of the second epoch.

    Args:
        folder: of the checkpoints.
        make: makes the module.
        stop: step after which the second run is stopped; its checkpoint is lost.
        steps: of a whole run.
        callbacks: makes further callbacks.
    """
    ends = []
    for name, stops in (("whole", ()), ("broken", (stop, None))):
        for last in stops or (None,):
            saver = ModelCheckpoint(folder / name, filename="{step}", every_n_train_steps=5, save_top_k=-1)
            given = [*callbacks(), *([Stop(last)] if last else []), saver]
            options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "limit_val_batches": 0}
            trainer = quiet(folder, enable_checkpointing=True, max_steps=steps, callbacks=given, **options)
            path = folder / name / f"step={stop - 1}.ckpt" if stops and not last else None
            try:
                trainer.fit(make(), datamodule=few_digits(), ckpt_path=path, weights_only=True)
            except RuntimeError as error:
                assert str(error) == "stopped"  # noqa: PT017
                assert not (folder / name / f"step={stop}.ckpt").exists()
        ends.append(torch.load(folder / name / f"step={steps}.ckpt", weights_only=True))
    return ends


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


def same(first, second, parts):
    """Assert that parts of two checkpoints are exactly equal."""
    for part in parts:
        values = [dict(leaves(checkpoint[part])) for checkpoint in (first, second)]
        assert values[0].keys() == values[1].keys(), part
        assert values[0], part
        for path, value in values[0].items():
            other = values[1][path]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, f"{part}{path}"
