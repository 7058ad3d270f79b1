"""`Samples`: samples to look at and listen to while a model trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation.generation import averaged_weights, frames_of, generate_samples
from callbacks.reporting.loggers import send_animations, send_numbers, send_pictures, send_sounds
from callbacks.reporting.trainer_state import run_folder
from datamodules.base import RenderedData, data_of, offered, required
from lit_models.contracts import CountsDecoding, Generates
from lit_models.sharding import gather, release
from litscale.models.fractal import decoding_summary


class Samples(Callback):
    """Generates samples now and then in training, always from the same noise.

    They go to W&B and TensorBoard as ``samples/picture`` (``samples/sound``, ``samples/animation``) and as files into
    ``samples/step_<n>`` of the run's folder. Rank zero alone makes them, while the others wait in their next step. If
    `EMAWeightAveraging` is among the callbacks, they are made with the averaged weights. If they are decoded in
    parallel, all loggers also get ``samples/decoding/passes_per_patch`` and the like.
    """

    def __init__(
        self,
        num_samples: int = 4,
        every_n_epochs: int | None = 1,
        every_n_steps: int | None = None,
        seed: int = 0,
        gif: bool = False,
        wav: bool = False,
    ) -> None:
        """Check the options.

        Args:
            num_samples: number of samples each time, in one batch.
            every_n_epochs: number of epochs after which samples are generated; null = not at epochs.
            every_n_steps: number of optimiser steps after which samples are generated; null = not at steps.
            seed: seed of the noise, the same each time.
            gif: also write an animation of their generation (files and W&B).
            wav: also write their sound.

        Raises:
            ValueError: a number is below 1, or samples would never be made.
        """
        super().__init__()
        if every_n_epochs is None and every_n_steps is None:
            raise ValueError("every_n_epochs and every_n_steps are both null: set one of them")
        if min(num_samples, every_n_epochs or 1, every_n_steps or 1) < 1 or 0 in (every_n_epochs, every_n_steps):
            raise ValueError("num_samples, every_n_epochs and every_n_steps must be at least 1")
        self.num_samples = num_samples
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.seed = seed
        self.gif = gif
        self.wav = wav
        self._last_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the data module can render samples and the module can generate them.

        Raises:
            MisconfigurationException: the data module has no renderer, or the module cannot generate.
            ValueError: sound of images is requested.
        """
        if stage != "fit":
            return
        required(data_of(trainer), RenderedData, self).renderer.check(wav=self.wav)
        required(pl_module, Generates, self)
        self._last_step = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Generate samples after every ``every_n_steps`` optimizer steps."""
        stepped = not trainer.fit_loop._should_accumulate()
        if stepped and self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._generate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate samples after every ``every_n_epochs`` epochs."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._generate(trainer, pl_module)

    def _generate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        gather(pl_module)
        if trainer.is_global_zero:
            self._make(trainer, pl_module)
        release(pl_module)

    def _make(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # No collective here: the other ranks are not.
        steps: list[tuple[Tensor, Tensor]] = []
        with averaged_weights(trainer, pl_module):
            canvases = generate_samples(
                trainer, pl_module, 0, self.num_samples, self.seed, frames=steps if self.gif else None
            )
        module = offered(pl_module, CountsDecoding)
        took = {} if module is None else decoding_summary(module.decoding_counts())
        if took:
            send_numbers(trainer, {f"samples/decoding/{name}": value for name, value in took.items()})
        folder = run_folder(trainer) / "samples" / f"step_{trainer.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        renderer = required(data_of(trainer), RenderedData, self).renderer
        files, pictures = [], []
        for i, symbols in enumerate(canvases.numpy()):
            animated = frames_of(steps, i) if steps else {}
            files += renderer.save(symbols, folder / f"sample_{i:05d}", wav=self.wav, **animated)
            pictures.append(renderer.picture(symbols))
        send_pictures(trainer, "samples/picture", pictures)
        if self.wav:
            send_sounds(trainer, "samples/sound", [file for file in files if file.suffix == ".wav"])
        if self.gif:
            send_animations(trainer, "samples/animation", [file for file in files if file.suffix == ".gif"])
