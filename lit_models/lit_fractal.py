"""Training, evaluation and generation of fractal models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from datamodules.base import CanvasData, VoiceData, data_of, offered, required
from lit_models.batches import Batch, StepOutput
from lit_models.companions import load_companion
from lit_models.generating import GeneratingModule
from lit_models.optimization import Optimization
from lit_models.sampling_threads import checked_threads, limited_threads
from litscale.metrics.mean import Mean
from litscale.metrics.standard_error import StandardError
from litscale.models.fractal import (
    CanvasNetwork,
    Fractal,
    Generation,
    GenerationReport,
    LevelAttention,
    attention_report,
    fill_official,
    generate,
)
from litscale.models.fractal.compatibility import check_draft, check_teacher
from litscale.models.fractal.compiled import check_compiler
from litscale.models.layers.blocks import Block
from litscale.models.small_weights import small_weights

GENERATION = Generation()
SMALL = ("", "_small_weights", "_small_weights_change")  # suffixes of scores
SIDE_BY_SIDE = "_side_by_side"  # suffix of scores of windows without context, where others are of whole pieces


class LitFractal(GeneratingModule):
    """Trains a fractal model, or a network of your own, by maximum likelihood; evaluates and samples it.

    ``validate`` and ``test`` report bits per dim and, for rolls, nats per step, both given the labels if there are any;
    for data of so many voices also nats per slot, a step of one voice. Where batches go through whole pieces, these are
    scores of whole pieces, and ``..._side_by_side`` those of windows without context.
    ``test`` then also reports them without labels, as ``..._unconditional``; FractalGen publishes these. If generation
    uses small weights, both also report the scores with these, as ``..._small_weights``, and their difference from the
    network's own, as ``..._small_weights_change``. Each score of several passes has a ``..._standard_error``.
    ``predict`` generates the requests of the data module.

    With a teacher, a trained run of a larger fractal model, ``fit`` distils it: it minimises the teacher-forced
    KL(teacher || network) of the distributions of all symbols, under the same masks. Evaluation and generation do not
    need the teacher. Checkpoints hold neither the teacher nor the draft of exact parallel decoding.

    Args:
        network: The network, a Fractal or any other CanvasNetwork.
        optimization: Learning rate, schedule and weight decay.
        generation: Options of generation.
        nll_passes: Number of passes over which the likelihood of each canvas is averaged in evaluation; models without
            MAR levels need one. The masks depend only on the seed of the run and on the canvas, not on batches or
            processes.
        official_checkpoint: File of published FractalGen weights to start from, for a network of the same preset.
        teacher_checkpoint: The run folder of the teacher, of which the best checkpoint is used, or the last one if
            there is no best; or a checkpoint in it, such as ``runs/NAME/checkpoints/last.ckpt``. The teacher's network
            has the same sizes, generators, scan, codec, guiding and num_classes; its widths and depths may differ.
        data_weight: With a teacher, the part of the data's cross-entropy in the loss, in 0..1; the rest is the
            divergence from the teacher.
        draft_checkpoint: With the generation's ``guess: draft``, the run of the smaller network that guesses, given
            like that of the teacher. Both networks have AR levels only, and the same sizes, codec, num_classes and
            scan of the first level.
        compile_blocks: Whether to compile the transformer blocks for training and likelihoods (``torch.compile``).
            Generation, in which shapes change with each step, is not compiled.
        sampling_threads: Number of CPU threads for generation; null takes one for networks narrower than 1024, and
            torch's number for others. Training keeps torch's number.
        sampler: Function that generates canvases with the network; your own function has the arguments of
            :func:`litscale.models.fractal.generate`.

    Raises:
        FileNotFoundError: there is no such official_checkpoint.
        ValueError: the official_checkpoint cannot be read or does not fit the network, or the options of generation do
            not fit it: ``iterations`` are of another number of levels, or ``cfg`` is given without classes; or only one
            of ``guess: draft`` and draft_checkpoint is given; or ``sampling_threads`` is below 1, or the data_weight
            out of range.
    """

    network: CanvasNetwork
    likelihoods: Mapping[str, Mapping[str, Mean | StandardError]]
    shardable = True
    weight_options = ("official_checkpoint",)

    def __init__(
        self,
        network: CanvasNetwork,
        optimization: Optimization = Optimization(),
        generation: Generation = GENERATION,
        nll_passes: int = 1,
        official_checkpoint: str | None = None,
        teacher_checkpoint: str | None = None,
        data_weight: float = 0.0,
        draft_checkpoint: str | None = None,
        compile_blocks: bool = False,
        sampling_threads: int | None = None,
        sampler: Callable[..., Any] = generate,
    ) -> None:
        super().__init__()
        generation.check(len(network.sizes) - 1, network.num_classes)
        if not 0 <= data_weight <= 1:
            raise ValueError(f"data_weight must be in 0..1, not {data_weight}")
        if data_weight and teacher_checkpoint is None:
            raise ValueError(
                f"data_weight {data_weight} needs a teacher: give teacher_checkpoint, or set data_weight to 0"
            )
        if generation.guess == "draft" and draft_checkpoint is None:
            raise ValueError("generation.guess draft needs draft_checkpoint, the run of a smaller network: give it")
        if draft_checkpoint is not None and generation.guess != "draft":
            raise ValueError(f"draft_checkpoint needs generation.guess draft, not {generation.guess}: set one of them")
        self.network = network
        self.optimization = optimization
        self.generation = generation
        if generation.compile or generation.parallel_level is not None:
            option = "compile" if generation.compile else "parallel_level"
            generation.parallel_depth(self._fractal(f"generation.{option}"))
        self.sampling_threads = checked_threads(sampling_threads)
        self.sampler = sampler
        self._report = GenerationReport()
        self.nll_passes = 1 if network.exact_likelihood else nll_passes
        self.official_checkpoint = official_checkpoint
        if official_checkpoint is not None:
            fill_official(self._fractal("official_checkpoint"), official_checkpoint)
        self.teacher_checkpoint, self.data_weight = teacher_checkpoint, data_weight
        self.draft_checkpoint = draft_checkpoint
        # in tuples, so that nn.Module does not register them
        self._teacher: tuple[Fractal, ...] = ()
        self._draft: tuple[Fractal, ...] = ()
        if compile_blocks:
            self.compile_each_block()
        # A unit is this many nats of a column of cells, which is a step of a roll.
        self.units = {"bits_per_dim": math.log(2) * network.codec.channels * network.sizes[0][0]}
        if not network.codec.is_image:
            self.units["nats_per_step"] = 1.0
        self._make_metrics()

    def _make_metrics(self) -> None:
        likelihoods = {"val": self._metrics([""]), "test": self._metrics(["", "_unconditional"])}
        self.likelihoods = cast("Mapping[str, Mapping[str, Mean | StandardError]]", nn.ModuleDict(likelihoods))

    @classmethod
    def standalone_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options without files; ``guess: draft`` becomes ``repeat``, which gives the same samples."""
        options = super().standalone_options(options)
        if (options.get("generation") or {}).get("guess") == "draft":
            options["generation"] = options["generation"] | {"guess": "repeat"}
        return options

    def _metrics(self, suffixes: list[str]) -> nn.ModuleDict:
        """Return the metrics of the likelihood in each unit, with and without labels and small weights."""
        parts = product(self.units, suffixes, SMALL, ("", SIDE_BY_SIDE))
        names = ["".join(part) for part in parts]
        metrics: dict[str, nn.Module] = {name: Mean() for name in names}
        if self.nll_passes > 1:
            metrics |= {f"{name}_standard_error": StandardError() for name in names}
        return nn.ModuleDict(metrics)

    def label_classes(self) -> int:
        """Return the number of classes of the network, 0 for none."""
        return self.network.num_classes

    def weight_files(self) -> dict[str, str]:
        """Return the official_checkpoint, if it is given."""
        return {} if self.official_checkpoint is None else {"official_checkpoint": self.official_checkpoint}

    def blocks(self) -> list[Block]:
        """Return the transformer blocks of all levels."""
        return [module for module in self.network.modules() if isinstance(module, Block)]

    def setup(self, stage: str) -> None:
        """Check the precision and the compiler, load the draft if any, and check that the data fit the network.

        Raises:
            FileNotFoundError: there is no such draft_checkpoint.
            ValueError: the precision cannot train; ``generation.compile`` is set, but torch cannot compile; channels,
                rows, alphabet or classes of the data do not fit; or the draft does not. The message names the options
                to change.
        """
        super().setup(stage)
        if self.generation.compile:
            check_compiler(self.trainer.strategy.root_device.type)
            rank_zero_info(
                "generation.compile: graphs are made with the first samples, and again for each other size of a batch, "
                "which takes half a minute to a minute of processor time"
            )
        self._drafts()
        if data_of(self.trainer) is None:  # plain loaders
            return
        voiced = offered(data_of(self.trainer), VoiceData)
        if voiced is not None and voiced.voices is not None and not self.network.codec.is_image:
            self.units["nats_per_slot"] = float(voiced.voices)
            self._make_metrics()
        data = required(data_of(self.trainer), CanvasData, self, "see docs/extending.md")
        codec, rows = self.network.codec, self.network.sizes[0][0]
        channels, height, _ = data.canvas_shape
        if (channels, height, data.alphabet) != (codec.channels, rows, codec.alphabet):
            raise ValueError(
                f"the data has {channels} channels, {height} rows and {data.alphabet} symbols, the network "
                f"{codec.channels} channels, {rows} rows and {codec.alphabet} symbols: make the network's codec, "
                "velocity_bins and sizes[0] agree with the data's encoding, velocity_bins and pitch_range (of images, "
                "with its channels and size)"
            )

    def on_fit_start(self) -> None:
        """Load the teacher.

        Raises:
            FileNotFoundError: there is no such teacher_checkpoint.
            ValueError: it cannot be read or does not fit the network.
        """
        if self.teacher_checkpoint is not None:
            student = self._fractal("teacher_checkpoint")
            teacher = load_companion("teacher_checkpoint", self.teacher_checkpoint, partial(check_teacher, student))
            self._teacher = (teacher.to(self.device),)

    def on_fit_end(self) -> None:
        """Release the teacher."""
        self._teacher = ()

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Compute the loss of a batch, and report ``loss/<level>``, ``mask_fraction/<level>`` and ``entropy``.

        With a teacher ``divergence/<level>`` is reported too, and ``loss/<level>`` stays the data's cross-entropy.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        logging = every > 0 and (self.global_step + 1) % every == 0
        options = self._start(batch)
        if self._teacher:
            options |= {"teacher": self._teacher[0], "data_weight": self.data_weight}
        output = self.network(batch["canvas"], batch.get("label"), with_entropy=logging, **options)
        loss = self.finite(output.loss)
        self.log("train/loss", loss.detach(), sync_dist=True)
        report = {f"mask_fraction/{name}": value for name, value in output.mask_fractions.items()}
        report |= {f"divergence/{name}": value.detach() for name, value in output.divergences.items()}
        if len(output.level_losses) > 1 or output.divergences:
            report |= {f"loss/{name}": value.detach() for name, value in output.level_losses.items()}
        if output.entropy is not None:
            report["entropy"] = output.entropy
        return {"loss": loss, "report": report}

    def _start(self, batch: Batch) -> dict[str, Any]:
        """Return ``start``, where canvases begin in their pieces, as an argument; empty if no network uses it."""
        told = self.network.periods or any(teacher.periods for teacher in self._teacher)
        return {"start": batch.get("start")} if told else {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update and log the likelihoods ``val/...``."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update and log the likelihoods ``test/...``."""
        self._evaluate("test", batch)

    def _evaluate(self, prefix: str, batch: Batch) -> None:
        label = batch.get("label")
        labels = {"": label}
        if prefix == "test" and label is not None:
            labels["_unconditional"] = None
        # 1. what each canvas counts, by protocol
        weights: dict[str, Tensor | None] = {"": None}
        if "counted" in batch:
            weights = {"": batch["counted"].sum(1), SIDE_BY_SIDE: batch["side_by_side"]}
        for suffix, given in labels.items():
            # 2. the network's own likelihoods
            nats = self._nats_per_step(batch, given)
            scores = {suffix: nats}
            # 3. those under the weights that samples are drawn with, for the same masks
            if self.generation.weights != "float32":
                with small_weights(self.network, self.generation.weights), torch.compiler.set_stance("force_eager"):
                    small = self._nats_per_step(batch, given)
                scores[f"{suffix}_small_weights"] = small
                scores[f"{suffix}_small_weights_change"] = {name: small[name] - nats[name] for name in nats}
            for name, values in scores.items():
                for protocol, value in values.items():
                    self._log_likelihood(prefix, name + protocol, value, weights[protocol])

    def _nats_per_step(self, batch: Batch, label: Tensor | None) -> dict[str, Tensor]:
        """Return the negative log-likelihoods of a batch in nats per column, ``[passes, B]``, by protocol.

        The protocol is the suffix of a metric: none, or that of windows side by side.
        """
        canvas = batch["canvas"]
        options = {"seed": self.run_seed, **self._start(batch)}
        if "counted" not in batch:
            return {"": self.network.nll_of_passes(canvas, label, self.nll_passes, **options) / canvas.shape[3]}
        nats, counted = self.network.nll_of_columns(canvas, label, self.nll_passes, **options), batch["counted"]
        # the mean over counted columns, which there are in each canvas; then that over all columns
        return {"": ((nats * counted).sum(2) / counted.sum(1)).float(), SIDE_BY_SIDE: nats.mean(2).float()}

    def _log_likelihood(self, prefix: str, suffix: str, nats: Tensor, weight: Tensor | None) -> None:
        """Update and log the metrics of nats per column, ``[passes, B]``; ``weight``, ``[B]``, is that of canvases."""
        metrics = self.likelihoods[prefix]
        for unit, size in self.units.items():
            name = f"{unit}{suffix}"
            mean = metrics[name]
            assert isinstance(mean, Mean)
            mean.update(nats.mean(0) / size, weight)
            self.log(f"{prefix}/{name}", mean, prog_bar=not suffix, on_epoch=True, on_step=False)
            if self.nll_passes > 1:
                error = metrics[f"{name}_standard_error"]
                error.update(nats / size)
                self.log(f"{prefix}/{name}_standard_error", error, on_epoch=True, on_step=False)

    def _drafts(self) -> dict[str, Fractal]:
        """Return the draft, if any, as an argument of the sampler, on the device and in the dtype of the network.

        Raises:
            FileNotFoundError: there is no such draft_checkpoint.
            ValueError: it cannot be read or does not fit the network.
        """
        if self.draft_checkpoint is None:
            return {}
        network = self._fractal("draft_checkpoint")
        if not self._draft:
            check = partial(check_draft, network, parallel=self.generation.parallel_depth(network))
            self._draft = (load_companion("draft_checkpoint", self.draft_checkpoint, check),)
        return {"draft": self._draft[0].to(network.no_class.device, network.no_class.dtype)}

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
        index: Tensor | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases of any width with the options ``generation``; arguments as in `GeneratingModule.generate`.

        Args:
            length: W, if no canvas is given.
        """

        def record(canvas: Tensor, done: Tensor) -> None:
            if frames is not None:
                frames.append((canvas.cpu(), done.cpu()))

        self._report = GenerationReport()
        threads = limited_threads(self.network, self.sampling_threads)
        with threads, torch.compiler.set_stance("force_eager"):
            drawn: Tensor = self.sampler(
                self.network,
                label,
                self.generation,
                batch_size=batch_size,
                canvas=canvas,
                known=known,
                length=length,
                seed=seed,
                index=index,
                on_step=None if frames is None else record,
                report=self._report,
                **self._drafts(),
            )
        return drawn

    def decoding_counts(self) -> dict[str, float]:
        """Return the counts of exact parallel decoding in the last call of :meth:`generate`; see `GenerationReport`."""
        return self._report.counts()

    def attention_report(self, canvas: Tensor, label: Tensor | None = None) -> dict[str, LevelAttention]:
        """Measure entropy and reach of attention, see :func:`litscale.models.fractal.attention_report`.

        Raises:
            ValueError: the network is no `Fractal`.
        """
        with torch.compiler.set_stance("force_eager"):
            return attention_report(self._fractal("callbacks.AttentionDiagnostics"), canvas.to(self.device), label)

    def parameters_by_level(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of ``level_0``, ... and of the ``leaf``; of another network, the groups it names."""
        return self.network.parameters_by_level()

    def _fractal(self, option: str) -> Fractal:
        """Return the network for an ``option`` that needs a `Fractal`.

        Raises:
            ValueError: the network is no `Fractal`; the message names the option.
        """
        if not isinstance(self.network, Fractal):
            raise ValueError(
                f"{option} needs litscale.models.fractal.Fractal, not {type(self.network).__name__}: omit it"
            )
        return self.network
