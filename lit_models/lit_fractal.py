"""Training, evaluation and generation of fractal models."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.base import CanvasData, required
from lit_models.base import GeneratingModule
from lit_models.optimization import Optimization
from litscale.metrics.mean import Mean
from litscale.metrics.standard_error import StandardError
from litscale.models.fractal import (
    CanvasNetwork,
    Fractal,
    Generation,
    LevelAttention,
    attention_report,
    fill_official,
    generate,
)
from litscale.models.layers.blocks import Block

GENERATION = Generation()


class LitFractal(GeneratingModule):
    """Trains a fractal model, or a network of your own, by maximum likelihood; evaluates and samples it.

    ``validate`` and ``test`` report nats per step (rolls) and bits per dim, given the labels where there are any;
    ``test`` then also reports them without labels (``..._unconditional``, as FractalGen publishes them). With several
    passes each has a ``..._standard_error``. ``predict`` generates the data module's requests.

    Args:
        network: the model, a Fractal or any other CanvasNetwork.
        optimization: learning rate, schedule, weight decay.
        generation: how samples are drawn.
        nll_passes: passes averaged for the likelihood of each canvas in evaluation; models without MAR levels need one.
            What they hide depends on the run's seed and the canvas alone, not on batches or processes.
        official_checkpoint: file with FractalGen's published weights to start from, for a network of that preset.
        compile_blocks: compile the transformer blocks for training and likelihoods (``torch.compile``); sampling, whose
            shapes change with each step, is not compiled.
        sampler: draws samples of the network; one of your own is a function with the arguments of
            :func:`litscale.models.fractal.generate`.

    Raises:
        FileNotFoundError: there is no such official_checkpoint.
        ValueError: the official_checkpoint cannot be read or does not fit the network, or generation does not fit it
            (``iterations`` of another number of levels, ``cfg`` without classes).
    """

    shardable = True
    weight_options = ("official_checkpoint",)

    def __init__(
        self,
        network: CanvasNetwork,
        optimization: Optimization = Optimization(),
        generation: Generation = GENERATION,
        nll_passes: int = 1,
        official_checkpoint: str | None = None,
        compile_blocks: bool = False,
        sampler: Callable[..., Any] = generate,
    ) -> None:
        super().__init__()
        generation.check(len(network.sizes) - 1, network.num_classes)
        self.network = network
        self.optimization = optimization
        self.generation = generation
        self.sampler = sampler
        self.nll_passes = 1 if network.exact_likelihood else nll_passes
        self.official_checkpoint = official_checkpoint
        if official_checkpoint is not None:
            fill_official(self._fractal("official_checkpoint"), official_checkpoint)
        if compile_blocks:
            self.compile_each_block()
        # nats of a column of cells (a step of a roll) in one of the unit
        self.units = {"bits_per_dim": math.log(2) * network.codec.channels * network.sizes[0][0]}
        if not network.codec.is_image:
            self.units["nats_per_step"] = 1.0
        self.likelihoods = nn.ModuleDict({"val": self._metrics([""]), "test": self._metrics(["", "_unconditional"])})

    def _metrics(self, suffixes: list[str]) -> nn.ModuleDict:
        """Mean and standard error of each unit and condition of the likelihood."""
        names = [unit + suffix for suffix in suffixes for unit in self.units]
        metrics: dict[str, nn.Module] = {name: Mean() for name in names}
        if self.nll_passes > 1:
            metrics |= {f"{name}_standard_error": StandardError() for name in names}
        return nn.ModuleDict(metrics)

    def weight_files(self) -> dict[str, str]:
        """The official_checkpoint, where it is given."""
        return {} if self.official_checkpoint is None else {"official_checkpoint": self.official_checkpoint}

    def blocks(self) -> list[Block]:
        """The transformer blocks of all levels."""
        return [module for module in self.network.modules() if isinstance(module, Block)]

    def setup(self, stage: str) -> None:
        """Check the precision, and that the data's canvases fit the network.

        Raises:
            ValueError: channels, rows or alphabet differ; the options to change are named.
        """
        super().setup(stage)
        if self.trainer.datamodule is None:  # plain loaders
            return
        data = required(self.trainer.datamodule, CanvasData, self, "see docs/extending.md")
        codec, rows = self.network.codec, self.network.sizes[0][0]
        channels, height, _ = data.canvas_shape
        if (channels, height, data.alphabet) != (codec.channels, rows, codec.alphabet):
            raise ValueError(
                f"the data has {channels} channels, {height} rows and {data.alphabet} symbols, the network "
                f"{codec.channels} channels, {rows} rows and {codec.alphabet} symbols: make the network's codec, "
                "velocity_bins and sizes[0] agree with the data's encoding, velocity_bins and pitch_range (of images, "
                "with its channels and size)"
            )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Loss of a batch, with a report for callbacks: ``loss/<level>``, ``mask_fraction/<level>``, ``entropy``."""
        every = self.trainer.log_every_n_steps
        logging = every > 0 and (self.global_step + 1) % every == 0
        output = self.network(batch["canvas"], batch.get("label"), with_entropy=logging)
        loss = self.finite(output.loss)
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
        report = {f"mask_fraction/{name}": value for name, value in output.mask_fractions.items()}
        if len(output.level_losses) > 1:
            report |= {f"loss/{name}": value.detach() for name, value in output.level_losses.items()}
        if output.entropy is not None:
            report["entropy"] = output.entropy
        return {"loss": loss, "report": report}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Likelihood of a batch, ``val/``."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Likelihood of a batch, ``test/``."""
        self._evaluate("test", batch)

    def _evaluate(self, prefix: str, batch: dict[str, Any]) -> None:
        canvas, label = batch["canvas"], batch.get("label")
        labels = {"": label}
        if prefix == "test" and label is not None:
            labels["_unconditional"] = None
        metrics = self.likelihoods[prefix]
        for suffix, given in labels.items():
            nats = self.network.nll_of_passes(canvas, given, self.nll_passes, seed=self.run_seed) / canvas.shape[3]
            for unit, size in self.units.items():
                name = f"{unit}{suffix}"
                metrics[name].update(nats.mean(0) / size)
                self.log(f"{prefix}/{name}", metrics[name], prog_bar=not suffix, on_epoch=True, on_step=False)
                if self.nll_passes > 1:
                    error = metrics[f"{name}_standard_error"]
                    error.update(nats / size)
                    self.log(f"{prefix}/{name}_standard_error", error, on_epoch=True, on_step=False)

    @torch.no_grad()
    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        canvas: Tensor | None = None,
        known: Tensor | None = None,
        length: int | None = None,
        seed: int | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases of any width with the module's :class:`Generation` settings.

        Args:
            label: int64 ``[B]``.
            batch_size: B, where neither label nor canvas gives it.
            canvas: uint8 ``[B, C, H, W]`` whose known cells are kept.
            known: bool ``[B, C, H, W]``.
            length: W where no canvas is given.
            seed: makes the result repeatable, whatever else draws random numbers.
            frames: is given the canvas and the mask of finished cells after each step of the first level, on the CPU.

        Returns:
            uint8 ``[B, C, H, W]`` on the module's device.
        """

        def record(canvas: Tensor, done: Tensor) -> None:
            frames.append((canvas.cpu(), done.cpu()))

        with torch.compiler.set_stance("force_eager"):
            drawn: Tensor = self.sampler(
                self.network,
                label,
                self.generation,
                batch_size=batch_size,
                canvas=canvas,
                known=known,
                length=length,
                seed=seed,
                on_step=None if frames is None else record,
            )
        return drawn

    def attention_report(self, canvas: Tensor, label: Tensor | None = None) -> dict[str, LevelAttention]:
        """Entropy and reach of attention, see :func:`litscale.models.fractal.attention_report`.

        Raises:
            ValueError: the network is no `Fractal`.
        """
        with torch.compiler.set_stance("force_eager"):
            return attention_report(self._fractal("callbacks.AttentionDiagnostics"), canvas.to(self.device), label)

    def parameters_by_level(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of ``level_0``, ... and of the ``leaf``; of another network the groups that it names."""
        return self.network.parameters_by_level()

    def _fractal(self, option: str) -> Fractal:
        """The network, for what needs the published levels.

        Raises:
            ValueError: it is another network.
        """
        if not isinstance(self.network, Fractal):
            raise ValueError(
                f"{option} needs litscale.models.fractal.Fractal, not {type(self.network).__name__}: omit it"
            )
        return self.network
