"""Training, evaluation and generation of VAR (next-scale prediction)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import _disable_current_modes

from datamodules.base import data_of
from lit_models.batches import Batch, StepOutput
from lit_models.generating import GeneratingModule
from lit_models.optimization import Optimization
from lit_models.sampling_threads import checked_threads, limited_threads
from lit_models.token_metrics import TokenMetrics, by_scale, token_scores, trained_tokens
from lit_models.tokenizer.data_checks import check_cache, check_canvas
from lit_models.tokenizer.encoding import codec_of, count_tokens, labels_of, tokens_of
from lit_models.tokenizer.known_tokens import known_tokens
from lit_models.tokenizer.weights import packed_tokenizer, unpack_tokenizer
from lit_models.transformer_files import load_networks
from litscale.models.var import VAR, VARGeneration, generate
from litscale.models.var.attention_times import attention_times

GENERATION = VARGeneration()


class LitVAR(GeneratingModule):
    """Trains VAR by maximum likelihood on the tokens of images or rolls; evaluates and samples it.

    Batches hold ``canvas``, which the frozen tokenizer encodes, or the ``tokens`` of a cache. Evaluation reports nats
    per token and per image. For comparison it reports those of a unigram model, which knows only how often each code
    occurred at each scale in the training batches so far. VAR has no bits per dim, as its likelihood is that of tokens,
    not of pixels.

    Checkpoints also hold the tokenizer, so that ``validate``, ``test`` and ``predict`` need no other file. The
    transformer of a checkpoint always runs with the tokenizer that it was trained with, whatever
    ``tokenizer_checkpoint`` says.

    Args:
        network: The transformer, with its tokenizer.
        optimization: Learning rate, schedule and weight decay.
        generation: Options of generation.
        tokenizer_checkpoint: File with the weights of the tokenizer: a checkpoint of LitVQVAE, or an official file. It
            is read unless a checkpoint is loaded; null leaves the tokenizer as it is.
        network_checkpoint: File with the weights that training starts from: a checkpoint of LitVAR, the draft of one of
            LitSDVAR, or an official file. It is read unless a checkpoint is loaded; null starts from random weights.
        scales: The scales that are trained, ``[first, end]`` without ``end``, for a network that makes only these, such
            as the draft of :class:`litscale.models.sdvar.Refine`; earlier scales come from the data. Null trains all
            scales.
        label_smoothing: Label smoothing of the training loss, in 0..1.
        progressive_steps: Number of optimiser steps over which training proceeds from the leading scales to all; 0
            trains all scales from the start.
        progressive_first: Number of leading scales that progressive training starts with.
        codec: Meaning of the channels of the tokenizer: rgb, gray, binary, velocity or onset_hold. By default it is rgb
            for three channels and gray for one.
        velocity_bins: Number of velocity bins of the data, for velocity and onset_hold.
        compile_blocks: Whether to compile the transformer blocks for training and likelihoods (``torch.compile``).
            Generation, in which shapes change with each scale, is not compiled.
        measure_attention: Whether to time the implementations of attention on the first training batch and to use the
            fastest one in place of the default of the network. Checkpoints hold the choice, so that a resumed run
            equals an uninterrupted one; on another device the implementations are timed again.
        sampling_threads: Number of CPU threads for generation; null takes one for networks narrower than 1024, and
            torch's number for others. Training keeps torch's number.

    Raises:
        ValueError: an option is out of range, the codec does not fit the tokenizer, or the attention of the network is
            both given and to be measured.
    """

    network: VAR
    frequencies: Tensor
    token_metrics: Mapping[str, TokenMetrics]
    shardable = True

    def __init__(
        self,
        network: VAR,
        optimization: Optimization = Optimization(),
        generation: VARGeneration = GENERATION,
        tokenizer_checkpoint: str | None = None,
        network_checkpoint: str | None = None,
        scales: tuple[int, int] | None = None,
        label_smoothing: float = 0.0,
        progressive_steps: int = 0,
        progressive_first: int = 1,
        codec: str | None = None,
        velocity_bins: int = 127,
        compile_blocks: bool = False,
        measure_attention: bool = False,
        sampling_threads: int | None = None,
    ) -> None:
        super().__init__()
        # 1. check the options
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in 0..1, not {label_smoothing}")
        if progressive_steps < 0 or not 1 <= progressive_first <= network.scales:
            raise ValueError(
                f"progressive_steps must not be negative and progressive_first must be in 1..{network.scales}, the "
                f"number of scales, not {progressive_steps} and {progressive_first}"
            )
        generation.check(network.scales)
        if progressive_steps and scales is not None:
            raise ValueError("progressive_steps trains all scales: set it to 0, or scales to null")
        if measure_attention and network.attention is not None:
            raise ValueError(
                f"the network's attention is {network.attention}, but measure_attention chooses it: set attention to "
                "null, or measure_attention to false"
            )
        # 2. keep them
        self.network = network
        self.optimization, self.generation = optimization, generation
        self.tokenizer_checkpoint, self.network_checkpoint = tokenizer_checkpoint, network_checkpoint
        self.trained_tokens, self.label_smoothing = trained_tokens(network, scales), label_smoothing
        self.progressive_steps, self.progressive_first = progressive_steps, progressive_first
        self.codec = codec_of(network.vqvae, codec, velocity_bins)
        self._has_tokenizer = False
        self.measure_attention = measure_attention
        self.sampling_threads = checked_threads(sampling_threads)
        self._measured: dict[str, str] = {}  # the fastest attention, and the device it was timed on
        if compile_blocks:
            self.compile_each_block()
        # 3. what is counted: tokens of the training data, scores of evaluations
        self.register_buffer("frequencies", torch.zeros(network.scales, network.vocab, dtype=torch.long))
        metrics = {stage: TokenMetrics(network.scales) for stage in ("val", "test")}
        self.token_metrics = cast("Mapping[str, TokenMetrics]", nn.ModuleDict(metrics))

    def label_classes(self) -> int:
        """Return the number of classes of the network, 0 for none."""
        return self.network.num_classes

    def blocks(self) -> Iterable[nn.Module]:
        """Return the transformer blocks."""
        return self.network.blocks

    def setup(self, stage: str) -> None:
        """Check the precision, and that the data fit the network and the tokenizer.

        Raises:
            ValueError: the precision cannot train, or the classes or the canvases of the data do not fit.
        """
        super().setup(stage)
        check_canvas(self.network.vqvae, self.codec, data_of(self.trainer))

    def _prepare(self) -> None:
        """Load the files, unless a checkpoint was loaded, and check that the tokenizer wrote the cache, if any.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is of another network or tokenizer, there is no trained tokenizer to train with, or
                another one wrote the cache.
        """
        quantizer = self.network.vqvae.to(self.device).quantizer  # not every strategy moves what is no submodule
        files = {"tokenizer_checkpoint": self.tokenizer_checkpoint, "network_checkpoint": self.network_checkpoint}
        if not self._has_tokenizer and any(files.values()):
            load_networks({"network": self.network}, files)
        known = self._has_tokenizer or self.tokenizer_checkpoint is not None or bool(quantizer.hits.any())
        if self.trainer.training and not known:
            raise ValueError(
                "the tokenizer was never trained: give tokenizer_checkpoint, a checkpoint of LitVQVAE or an official "
                "file"
            )
        self._has_tokenizer = True
        check_cache(self.network.vqvae, data_of(self.trainer))

    def _logits(self, batch: Batch, tokens: list[Tensor], scales: int) -> Tensor:
        """Return the teacher-forced logits of the leading scales, float32 ``[B, positions, V]``."""
        network = self.network
        inputs = network.vqvae.quantizer.teacher_input(tokens[: max(scales - 1, 1)])
        labels = batch.get("label") if network.num_classes else None
        return network(labels, inputs[:, : network.bounds[scales] - network.bounds[1]])

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Compute the loss of a batch.

        The report holds ``loss/scale_<k>``, in nats per token, and ``accuracy/scale_<k>``. In progressive training it
        also holds ``scales``, the number of scales that are trained.
        """
        # 1. encode
        tokens = tokens_of(self.network, self.codec, batch)
        if self.measure_attention and self.network.attention is None:
            self._take_fastest_attention(batch_size=len(tokens[0]))
        self.frequencies += self.trainer.strategy.reduce(self.network.vqvae.quantizer.count(tokens), reduce_op="sum")
        # 2. the loss of the scales that are trained
        scales = self.active_scales(self.global_step)
        logits, wanted = self._logits(batch, tokens, scales), torch.cat(tokens[:scales], dim=1)
        trained = logits[:, self.trained_tokens].flatten(0, 1), wanted[:, self.trained_tokens].flatten()
        loss = self.finite(F.cross_entropy(*trained, label_smoothing=self.label_smoothing))
        self.log("train/loss", loss.detach(), sync_dist=True)
        # 3. report
        report: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, values in zip(("loss", "accuracy"), token_scores(logits, wanted), strict=True):
                report |= {f"{name}/scale_{k}": part.mean() for k, part in enumerate(by_scale(self.network, values))}
        if self.progressive_steps:
            report["scales"] = loss.new_full((), scales)
        return {"loss": loss, "report": report}

    def batch_counts(self, batch: Batch) -> dict[str, int]:
        """Count the ``samples`` of a batch, the ``tokens`` of its trained scales, and the ``cells`` of its canvases."""
        reached = self.network.bounds[self.active_scales(self.global_step)]
        return count_tokens(batch, len(range(reached)[self.trained_tokens]))

    def _take_fastest_attention(self, batch_size: int) -> None:
        """Let all ranks use the attention that is the fastest on the device of rank zero."""
        cuda = self.device.type == "cuda"
        device = self.trainer.strategy.broadcast(torch.cuda.get_device_name(self.device) if cuda else self.device.type)
        if self._measured.get("device") != device:
            # All ranks measure at the same time, as they share the machine in training, too; and nothing that watches
            # the step, as a counter of FLOPs, watches the measurement or keeps FlexAttention from being compiled.
            with _disable_current_modes():
                times = attention_times(self.network, batch_size)
            fastest = self.trainer.strategy.broadcast(min(times, key=times.__getitem__))
            self._measured = {"device": device, "attention": fastest}
            shown = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in times.items())
            rank_zero_info(f"Attention of training steps: {fastest}, the fastest on {device} ({shown} in one block)")
        self.network.attention = self._measured["attention"]

    def active_scales(self, step: int) -> int:
        """Return the number of leading scales that are trained at an optimiser step."""
        if step >= self.progressive_steps:
            return self.network.scales
        stages = self.network.scales - self.progressive_first + 1
        return self.progressive_first + stages * step // self.progressive_steps

    def on_fit_start(self) -> None:
        """Prepare the network and its tokenizer; a checkpoint, if there is one, was loaded before."""
        self._prepare()

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update and log the metrics ``val/...``."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update and log the metrics ``test/...``."""
        self._evaluate("test", batch)

    def _evaluate(self, prefix: str, batch: Batch) -> None:
        tokens = tokens_of(self.network, self.codec, batch)
        metrics = self.token_metrics[prefix]
        logits = self._logits(batch, tokens, self.network.scales)
        metrics.record(self.network, logits, torch.cat(tokens, dim=1), self.frequencies)
        for name, metric in metrics.means.items():
            shown = name == "nats_per_token"
            self.log(f"{prefix}/{name}", metric, prog_bar=shown, on_epoch=True, on_step=False, batch_size=len(logits))

    @torch.no_grad()
    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        canvas: Tensor | None = None,
        known: Tensor | None = None,
        seed: int | None = None,
        index: Tensor | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases with the options ``generation``; arguments as in `GeneratingModule.generate`.

        Tokens of which at least half the cells are known are not drawn, but taken from the encoded canvas, in which the
        mean of the known cells stands for the unknown ones. Known cells keep their values. A frame is taken after each
        scale, with all cells finished.

        Raises:
            ValueError: the canvas or the labels do not fit the model.
        """
        # 1. read the request: classes, and the tokens of what is known
        label = labels_of(self.network, label, batch_size if canvas is None else len(canvas))
        tokens = masks = None
        if canvas is not None and known is not None and known.any():
            canvas, known = canvas.to(self.device), known.to(self.device)
            tokens, masks = known_tokens(self.network.vqvae, self.codec, canvas, known)
        # 2. draw all other tokens
        threads = limited_threads(self.network, self.sampling_threads)
        with threads, torch.compiler.set_stance("force_eager"):
            every = frames is not None
            sampled = generate(
                self.network,
                label,
                self.generation,
                seed,
                tokens=tokens,
                known=masks,
                image_index=None if index is None else index.to(self.device),
                all_scales=every,
            )

        # 3. make canvases of the pictures, in which known cells keep their values
        def finished(images: Tensor) -> Tensor:
            made = self.codec.to_symbols(images.float() * 2 - 1)
            if masks is None or known is None or canvas is None:
                return made
            return torch.where(known, canvas, made)

        if frames is not None and sampled.images_per_scale is not None:
            pictures = [finished(images).cpu() for images in sampled.images_per_scale]
            frames += [(picture, torch.ones_like(picture, dtype=torch.bool)) for picture in pictures]
        return finished(sampled.images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the tokenizer, and the attention that was measured to be the fastest, in the checkpoint."""
        checkpoint["tokenizer"] = packed_tokenizer(self.network.vqvae)
        checkpoint["measured_attention"] = self._measured

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the tokenizer that the transformer was trained with, and the measured attention, from the checkpoint.

        Raises:
            ValueError: the checkpoint holds no tokenizer, or one that is damaged or has another architecture.
        """
        stored = checkpoint.get("tokenizer")
        if stored is None:
            raise ValueError("the checkpoint holds no tokenizer, so it is not one of LitVAR")
        unpack_tokenizer(self.network.vqvae, stored, "the checkpoint")
        self._has_tokenizer = True
        self._measured = checkpoint.get("measured_attention", {})
