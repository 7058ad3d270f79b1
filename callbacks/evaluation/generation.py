"""Generation of samples by callbacks; it changes no state of the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from datamodules.base import class_count, data_of
from lit_models.contracts import Generates


def generate_samples(
    trainer: Trainer,
    pl_module: LightningModule,
    first: int,
    count: int,
    seed: int,
    *,
    frames: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Generate samples ``first``, ``first + 1``, ... in the trainer's precision.

    The module draws from a generator with its own seed, so the state of the global one does not change. If the data has
    classes, sample i is of class i modulo their number.

    Args:
        trainer: the trainer.
        pl_module: a module with ``generate``.
        first: number of the first sample, for its class and its noise.
        count: number of samples.
        seed: seed of the noise; a sample is the same in any batch.
        frames: a list that gets the canvas and the mask of finished cells after each step of the first level.

    Returns:
        The samples, uint8 ``[B, C, H, W]``, on the CPU, as are the frames.
    """
    classes = class_count(data_of(trainer))
    index = torch.arange(first, first + count, device=pl_module.device)
    label = index % classes if classes else None
    with torch.no_grad(), trainer.precision_plugin.predict_step_context():
        return cast(Generates, pl_module).generate(label, batch_size=count, seed=seed, index=index, frames=frames).cpu()


def frames_of(frames: list[tuple[Tensor, Tensor]], row: int) -> dict[str, Any]:
    """Return the arguments with which a renderer's ``save`` animates one sample of a batch."""
    return {
        "frames": [canvas[row].numpy() for canvas, _ in frames],
        "unknown": [~done[row].bool().numpy() for _, done in frames],
    }


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Use the weights of validation and checkpoints inside the block, if a callback averages weights.

    This is for code between validations; in a validation these weights are in use already.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    averaging = [callback for callback in callbacks if isinstance(callback, WeightAveraging)]
    averaging = [callback for callback in averaging if callback._average_model is not None]
    for callback in averaging:
        callback._swap_models(pl_module)
    try:
        yield
    finally:
        for callback in reversed(averaging):
            callback._swap_models(pl_module)
