"""Training, evaluation and generation of VAR, next-scale prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lit_models.base import GeneratingModule
from lit_models.optimization import Optimization
from lit_models.token_metrics import TokenMetrics, by_scale, token_scores
from lit_models.tokenizer.data_checks import check_cache, check_canvas, check_classes
from lit_models.tokenizer.encoding import codec_of, tokens_of
from lit_models.tokenizer.known_tokens import known_tokens
from lit_models.tokenizer.weights import load_tokenizer, packed_tokenizer, unpack_tokenizer
from litscale.models.var import VAR, VARGeneration, generate
from litscale.models.var.attention_times import attention_times
from litscale.models.var.blocks import VARBlock

GENERATION = VARGeneration()


class LitVAR(GeneratingModule):
    """Trains VAR on the tokens of images (or rolls) by maximum likelihood; evaluates and samples it.

    Batches hold ``canvas``, which the frozen tokenizer encodes, or ``tokens`` of a cache. Evaluation reports nats per
    token and per image, and beside them those of a unigram model, the frequencies of codes at each scale in the
    training batches so far. Bits per dim are not defined for VAR: its likelihood is one of tokens, not of pixels.

    Checkpoints hold the tokenizer too, so ``validate``, ``test`` and ``predict`` need no other file; whatever
    ``tokenizer_checkpoint`` says, a checkpoint's transformer runs with the tokenizer it was trained with.

    Args:
        network: the transformer, with its tokenizer.
        optimization: learning rate, schedule, weight decay.
        generation: how tokens are drawn.
        tokenizer_checkpoint: the tokenizer's weights: a checkpoint of LitVQVAE, or an official file. It is read where
            no checkpoint is given; null leaves the tokenizer as it is.
        label_smoothing: of the training loss.
        progressive_steps: optimiser steps over which training proceeds from the leading scales to all; 0 trains all
            scales from the start.
        progressive_first: number of leading scales that it starts with.
        codec: what the tokenizer's channels stand for: rgb, gray, binary, velocity or onset_hold; null = rgb for three
            channels, gray for one.
        velocity_bins: of the data, for velocity and onset_hold.
        compile_blocks: compile the transformer blocks for training and likelihoods (``torch.compile``); sampling, whose
            shapes change with each scale, is not compiled.
        measure_attention: time the ways to compute attention with the first training batch, and take the fastest in
            place of the network's default. Checkpoints hold the choice, so that a resumed run is the same run; on
            another device it is measured again.

    Raises:
        ValueError: an option is out of range, the codec does not fit the tokenizer, or the network's attention is both
            given and to be measured.
    """

    frequencies: Tensor
    shardable = True

    def __init__(
        self,
        network: VAR,
        optimization: Optimization = Optimization(),
        generation: VARGeneration = GENERATION,
        tokenizer_checkpoint: str | None = None,
        label_smoothing: float = 0.0,
        progressive_steps: int = 0,
        progressive_first: int = 1,
        codec: str | None = None,
        velocity_bins: int = 127,
        compile_blocks: bool = False,
        measure_attention: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in 0..1, not {label_smoothing}")
        if progressive_steps < 0 or not 1 <= progressive_first <= network.scales:
            raise ValueError(
                f"progressive_steps must not be negative and progressive_first must be in 1..{network.scales}, the "
                f"number of scales, not {progressive_steps} and {progressive_first}"
            )
        if measure_attention and network.attention is not None:
            raise ValueError(
                f"the network's attention is {network.attention}, and measure_attention is to choose it: make one of "
                "them null or false"
            )
        self.network = network
        self.optimization, self.generation = optimization, generation
        self.tokenizer_checkpoint, self.label_smoothing = tokenizer_checkpoint, label_smoothing
        self.progressive_steps, self.progressive_first = progressive_steps, progressive_first
        self.codec = codec_of(network.vqvae, codec, velocity_bins)
        self._has_tokenizer = False
        self.measure_attention = measure_attention
        self._measured: dict[str, str] = {}  # which attention was the fastest, and on which device
        if compile_blocks:
            self.compile_each_block()
        self.register_buffer("frequencies", torch.zeros(network.scales, network.vocab, dtype=torch.long))
        self.token_metrics = nn.ModuleDict({stage: TokenMetrics(network.scales) for stage in ("val", "test")})

    def blocks(self) -> list[VARBlock]:
        """The transformer blocks."""
        return self.network.blocks

    def setup(self, stage: str) -> None:
        """Check the precision, and that the data fits the tokenizer and the network.

        Raises:
            ValueError: the data's canvases or classes differ.
        """
        super().setup(stage)
        check_canvas(self.network.vqvae, self.codec, self.trainer.datamodule)
        check_classes(self.network.num_classes, self.trainer.datamodule)

    def _prepare(self) -> None:
        """Load the tokenizer, unless a checkpoint brought it, and compare it with the one that a cache is of.

        Raises:
            FileNotFoundError: there is no such tokenizer_checkpoint.
            ValueError: it is of another tokenizer, there is none to train with, or the cache is of another one.
        """
        quantizer = self.network.vqvae.to(self.device).quantizer  # not all strategies move what is in no parameters()
        if self.tokenizer_checkpoint is not None and not self._has_tokenizer:
            load_tokenizer(self.network.vqvae, self.tokenizer_checkpoint)
        elif self.trainer.training and not self._has_tokenizer and not quantizer.hits.any():
            raise ValueError(
                "the tokenizer was never trained: give tokenizer_checkpoint, a checkpoint of LitVQVAE or an official "
                "file"
            )
        self._has_tokenizer = True
        check_cache(self.network.vqvae, self.trainer.datamodule)

    def _logits(self, batch: Mapping[str, Any], tokens: list[Tensor], scales: int) -> Tensor:
        """Logits of the leading scales, float32 ``[B, positions, V]``."""
        network = self.network
        inputs = network.vqvae.quantizer.teacher_input(tokens[: max(scales - 1, 1)])
        labels = batch.get("label") if network.num_classes else None
        return network(labels, inputs[:, : network.bounds[scales] - network.bounds[1]])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Loss of a batch, with a report for callbacks: ``loss/scale_<k>`` in nats per token, ``accuracy/scale_<k>``.

        While training proceeds from scale to scale there is also ``scales``, their number.
        """
        tokens = tokens_of(self.network, self.codec, batch)
        if self.measure_attention and self.network.attention is None:
            self._take_fastest_attention(batch_size=len(tokens[0]))
        self.frequencies += self.trainer.strategy.reduce(self.network.vqvae.quantizer.count(tokens), reduce_op="sum")
        scales = self.active_scales(self.global_step)
        logits, wanted = self._logits(batch, tokens, scales), torch.cat(tokens[:scales], dim=1)
        loss = self.finite(
            F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), label_smoothing=self.label_smoothing)
        )
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
        report = {}
        with torch.no_grad():
            for name, values in zip(("loss", "accuracy"), token_scores(logits, wanted), strict=True):
                report |= {f"{name}/scale_{k}": part.mean() for k, part in enumerate(by_scale(self.network, values))}
        if self.progressive_steps:
            report["scales"] = loss.new_tensor(scales)
        return {"loss": loss, "report": report}

    def _take_fastest_attention(self, batch_size: int) -> None:
        """Take the attention that is the fastest on rank zero's device, on all ranks."""
        cuda = self.device.type == "cuda"
        device = self.trainer.strategy.broadcast(torch.cuda.get_device_name(self.device) if cuda else self.device.type)
        if self._measured.get("device") != device:
            # all ranks measure, as they share the machine in training too
            times = attention_times(self.network, batch_size)
            fastest = self.trainer.strategy.broadcast(min(times, key=times.__getitem__))
            self._measured = {"device": device, "attention": fastest}
            shown = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in times.items())
            rank_zero_info(f"Attention of training steps: {fastest}, the fastest on {device} ({shown} in one block)")
        self.network.attention = self._measured["attention"]

    def active_scales(self, step: int) -> int:
        """Number of leading scales that are trained at an optimiser step."""
        if step >= self.progressive_steps:
            return self.network.scales
        stages = self.network.scales - self.progressive_first + 1
        return self.progressive_first + stages * step // self.progressive_steps

    def on_fit_start(self) -> None:
        """Get the tokenizer ready, now that a checkpoint would have been read."""
        self._prepare()

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Likelihood of a batch, ``val/``."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Likelihood of a batch, ``test/``."""
        self._evaluate("test", batch)

    def _evaluate(self, prefix: str, batch: dict[str, Any]) -> None:
        tokens = tokens_of(self.network, self.codec, batch)
        metrics = self.token_metrics[prefix]
        logits = self._logits(batch, tokens, self.network.scales)
        metrics.record(self.network, logits, torch.cat(tokens, dim=1), self.frequencies)
        for name, metric in metrics.items():
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
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases with the module's :class:`VARGeneration` settings.

        Tokens of which at least half the cells are known are those of the known picture, in which the mean of its known
        cells fills the rest; the others are drawn. Known cells themselves come back as they were.

        Args:
            label: int64 ``[B]``; without it, no class.
            batch_size: B, where neither label nor canvas gives it.
            canvas: uint8 ``[B, C, H, W]`` whose known cells are kept.
            known: bool ``[B, C, H, W]``.
            seed: with it, row i is the same in every call, whatever else draws random numbers; without it, torch's
                generator gives one.
            frames: is given the canvas after each scale, and a mask of True, as the picture is whole at each scale, on
                the CPU.

        Returns:
            uint8 ``[B, C, H, W]`` on the module's device.

        Raises:
            ValueError: the canvas or the labels do not fit the model.
        """
        if label is None:
            label = torch.full((batch_size if canvas is None else len(canvas),), -1)
        label = label if self.network.num_classes else torch.full_like(label, -1)
        forced: dict[str, list[Tensor]] = {}
        if canvas is not None and known is not None and known.any():
            canvas, known = canvas.to(self.device), known.to(self.device)
            forced = known_tokens(self.network.vqvae, self.codec, canvas, known)
        with torch.compiler.set_stance("force_eager"):
            sampled = generate(self.network, label, self.generation, seed, all_scales=frames is not None, **forced)

        def finished(images: Tensor) -> Tensor:
            made = self.codec.to_symbols(images.float() * 2 - 1)
            return torch.where(known, canvas, made) if forced else made

        if frames is not None and sampled.images_per_scale is not None:
            pictures = [finished(images).cpu() for images in sampled.images_per_scale]
            frames += [(picture, torch.ones_like(picture, dtype=torch.bool)) for picture in pictures]
        return finished(sampled.images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the tokenizer beside the transformer, and which attention was measured to be the fastest."""
        checkpoint["tokenizer"] = packed_tokenizer(self.network.vqvae)
        checkpoint["measured_attention"] = self._measured

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the tokenizer that the transformer was trained with.

        Raises:
            ValueError: the checkpoint has none, it is damaged, or of another architecture.
        """
        stored = checkpoint.get("tokenizer")
        if stored is None:
            raise ValueError("the checkpoint holds no tokenizer, so it is not one of LitVAR")
        unpack_tokenizer(self.network.vqvae, stored, "the checkpoint")
        self._has_tokenizer = True
        self._measured = checkpoint.get("measured_attention", {})
