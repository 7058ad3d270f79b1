"""Training and evaluation of the multi-scale tokenizer of VAR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim import Optimizer

from datamodules.base import data_of
from lit_models.base import LitModule
from lit_models.batches import Batch, StepOutput
from lit_models.optimization import Optimization
from lit_models.tokenizer.codebook import UsageAlarm, report
from lit_models.tokenizer.data_checks import check_canvas, token_metadata
from lit_models.tokenizer.encoding import codec_of, count_tokens, encode
from lit_models.tokenizer.options import DiscriminatorConfig, TokenizerLoss
from lit_models.tokenizer.perceptual import PerceptualLoss
from lit_models.tokenizer.reconstruction import ReconstructionMetrics
from litscale.models.precision import Convert, at_least_float32
from litscale.models.var import VQVAE, Discriminator, VQOutput
from litscale.models.var.autoencoder import ResidualBlock, SpatialAttention
from litscale.models.var.discriminator import adaptive_weight, consistency_loss, hinge_loss

LOSS, NO_DISCRIMINATOR = TokenizerLoss(), DiscriminatorConfig()


class LitVQVAE(LitModule):
    """Trains and evaluates the multi-scale tokenizer on images or piano rolls; ``predict`` yields tokens.

    The tokenizer and its discriminator learn in one backward pass: the loss of the discriminator does not reach the
    reconstruction, and the adversarial loss does not reach the weights of the discriminator. The result is that of two
    optimisers that take turns on the same reconstruction, while accumulation, loss scaling, DDP and resuming work as
    for any other module. The gradients of each of the two are clipped by their own norm.

    With ``trainer.precision`` bf16-true and 16-true the tokenizer stays in float32, and so do its tokens and scores.

    Every ``restart_every`` steps, codes that were not used at any scale since the last time are replaced by features
    that the current batch was looking up codes for. These are sampled uniformly over scales.

    Args:
        network: The tokenizer.
        optimization: Learning rate, schedule and weight decay of the tokenizer and of the discriminator.
        loss: Weights of the terms of the reconstruction loss.
        discriminator: The patch discriminator; its weight of 0 by default trains without one.
        restart_every: Number of optimiser steps between replacements of unused codes; 0 replaces none.
        restart_until: Last optimiser step at which codes are replaced; null sets no end.
        usage_alarm: Warn once if the usage of a scale with more than one token is below this percentage in two
            validations in a row; 0 never warns.
        codec: Meaning of the channels of the tokenizer: rgb, gray, binary, velocity or onset_hold. By default it is rgb
            for three channels and gray for one.
        velocity_bins: Number of velocity bins of the data, for velocity and onset_hold.
        features: Feature extractor for rFID in evaluation, see `litscale.metrics.features`; null leaves rFID out.
        compile_blocks: Whether to compile the residual and attention blocks of encoder and decoder.

    Raises:
        ValueError: the codec and the tokenizer differ in their number of channels, or an option is out of range.
        FileNotFoundError: there is no file of perceptual weights.
    """

    network: VQVAE
    drawn: Tensor
    reconstructions: Mapping[str, ReconstructionMetrics]
    shardable = True

    def __init__(
        self,
        network: VQVAE,
        optimization: Optimization = Optimization(),
        loss: TokenizerLoss = LOSS,
        discriminator: DiscriminatorConfig = NO_DISCRIMINATOR,
        restart_every: int = 100,
        restart_until: int | None = None,
        usage_alarm: float = 0.0,
        codec: str | None = None,
        velocity_bins: int = 127,
        features: nn.Module | None = None,
        compile_blocks: bool = False,
    ) -> None:
        super().__init__()
        if restart_every < 0:
            raise ValueError(f"restart_every must not be negative, got {restart_every}; 0 is never")
        if restart_every and network.quantizer.simvq:
            raise ValueError(
                f"restart_every is {restart_every}, but simvq makes codes by a map of frozen vectors, which "
                "cannot be replaced: set restart_every to 0"
            )
        if not 0 <= usage_alarm <= 100:
            raise ValueError(f"usage_alarm must be in 0..100, in percent, got {usage_alarm}")
        self.network = network
        self.usage_alarm = UsageAlarm(usage_alarm, network.patch_nums)
        self.optimization, self.loss, self.discriminator_config = optimization, loss, discriminator
        self.restart_every, self.restart_until = restart_every, restart_until
        self.codec = codec_of(network, codec, velocity_bins)
        self.discriminator = None
        if discriminator.weight:
            self.discriminator = Discriminator(network.in_channels, discriminator.width, discriminator.layers)
        self.register_buffer("drawn", torch.zeros(network.vocab, dtype=torch.long))  # uses since the last restart
        perceptual = None
        if loss.perceptual_weights is not None:
            if network.in_channels not in (1, 3):
                raise ValueError(f"LPIPS compares images of 1 or 3 channels, not {network.in_channels}: leave it out")
            perceptual = PerceptualLoss(loss.perceptual_net, loss.perceptual_weights)
        # Not submodules: they follow the module to its device, but are excluded from its parameters and checkpoints.
        self._tools = {"lpips": perceptual, "extractor": features}
        metrics = {
            stage: ReconstructionMetrics(network, self.codec, perceptual is not None, features)
            for stage in ("val", "test")
        }
        self.reconstructions = cast("Mapping[str, ReconstructionMetrics]", nn.ModuleDict(metrics))
        self._queries: list[Tensor] = []
        if compile_blocks:
            self.compile_each_block()

    @classmethod
    def standalone_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options without the files of LPIPS and of the feature extractor."""
        options = super().standalone_options(options)
        loss = dict(options.get("loss") or {}) | {"perceptual": 0.0, "perceptual_weights": None}
        return options | {"loss": loss, "features": None}

    def trained(self) -> list[nn.Module]:
        """Return the tokenizer and its discriminator."""
        return [self.network] if self.discriminator is None else [self.network, self.discriminator]

    def blocks(self) -> list[nn.Module]:
        """Return the residual and attention blocks of encoder and decoder."""
        return [part for part in self.network.modules() if isinstance(part, ResidualBlock | SpatialAttention)]

    def setup(self, stage: str) -> None:
        """Check the precision, and that the canvases of the data fit the tokenizer.

        Raises:
            ValueError: channels, sides or alphabet differ; the message names the options to change.
        """
        super().setup(stage)
        check_canvas(self.network, self.codec, data_of(self.trainer))

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Compute the loss of a batch.

        The report holds ``loss/<term>``, ``usage/scale_<k>`` and ``perplexity/scale_<k>``, which are running averages
        over about a hundred steps, and with a discriminator ``adversarial_weight``.
        """
        # 1. reconstruct
        real = self.codec.to_planes(batch["canvas"])
        out = self.network(real)
        self._count(out)
        # 2. add up the terms of the loss
        terms = self._reconstruction(real, out.images.float())
        weighted = (getattr(self.loss, name) * value for name, value in terms.items())
        loss = sum(weighted, start=terms["l1"].new_zeros(()))
        terms |= {"codebook": out.codebook_loss, "commitment": out.commitment_loss}
        if out.entropy_loss is not None:
            terms["entropy"] = out.entropy_loss
        total = loss + self.loss.quantizer * out.loss
        weights = {}
        # 3. let the discriminator judge
        if self.discriminator is not None:
            judged, opposed, weight = self._judge(self.discriminator, real, out.images, loss)
            terms |= {"adversarial": judged, "discriminator": opposed}
            weights["adversarial_weight"] = weight
            total = total + weight * judged + opposed
        # 4. report
        total = self.finite(total)
        self.log("train/loss", total.detach(), sync_dist=True)
        named = {f"loss/{name}": value.detach() for name, value in terms.items()} | weights
        return {"loss": total, "report": named | report(self.network.quantizer.hits)}

    def batch_counts(self, batch: Batch) -> dict[str, int]:
        """Count the ``samples``, ``cells`` and ``tokens`` of all scales in a batch."""
        return count_tokens(batch, sum(side**2 for side in self.network.patch_nums))

    def _reconstruction(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Return the terms of the reconstruction loss, by the names of their weights."""
        terms = {"l1": F.l1_loss(made, real), "l2": F.mse_loss(made, real)}
        lpips = self._tools["lpips"]
        if self.loss.perceptual and lpips is not None:
            terms["perceptual"] = lpips(made, real).mean()
        return terms

    def _judge(
        self, discriminator: Discriminator, real: Tensor, made: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the adversarial loss, the loss of the discriminator, and the weight of the former."""
        factor = self.discriminator_config.factor(self.global_step)
        zero = loss.new_zeros(())
        if not factor:
            # Every process must have a gradient for every parameter.
            return zero, discriminator(real[:1]).float().sum() * 0, zero
        # 1. score real images and reconstructions
        images = (real, made.detach())
        verdicts = [discriminator(image) for image in images]
        judged = -discriminator.frozen(made).mean()  # after a forward, which gathers sharded weights
        # 2. weigh the adversarial loss
        weight = loss.new_full((), self.discriminator_config.weight * factor)
        if self.discriminator_config.adaptive:
            last = self.network.decoder.conv_out.weight
            gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (loss, judged)]
            shared = self.trainer.strategy.reduce(torch.stack(gradients), reduce_op="mean")
            weight = weight * adaptive_weight(shared[0], shared[1])
        # 3. the loss of the discriminator itself
        opposed = hinge_loss(*verdicts)
        if self.discriminator_config.consistency:
            changes = [
                consistency_loss(discriminator, image, seen) for image, seen in zip(images, verdicts, strict=True)
            ]
            opposed = opposed + self.discriminator_config.consistency * sum(changes)
        return judged, opposed, weight

    @torch.no_grad()
    def _count(self, out: VQOutput) -> None:
        """Record which codes the batch used, over all processes, and the features that it looked up codes for."""
        counts = self.trainer.strategy.reduce(out.counts, reduce_op="sum")
        self.network.quantizer.record_hits(counts)
        self.drawn += counts.sum(0)
        self._queries = out.queries

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Take a step and restart unused codes if it is time, before any callback saves a checkpoint of this step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        step = self.global_step + 1
        late = self.restart_until is not None and step > self.restart_until
        if self.restart_every and step % self.restart_every == 0 and not late:
            self._restart()

    @torch.no_grad()
    def _restart(self) -> None:
        """Replace unused codes by features that the last batch of the first process looked up codes for."""
        # 1. find codes without use, the same on all processes
        dead = self.drawn == 0
        self.drawn.zero_()
        # 2. sample a feature for each code, whether it is dead or not, as the host does not know; uniformly over scales
        scale = torch.randint(len(self._queries), (self.network.vocab, 1), device=dead.device)
        vectors = self._queries[0].new_zeros(self.network.vocab, self.network.dim)
        for k, queries in enumerate(self._queries):
            rows = queries.flatten(0, 1)
            drawn = rows[torch.randint(len(rows), (self.network.vocab,), device=rows.device)]
            vectors = torch.where(scale == k, drawn, vectors)
        # 3. all processes take those of the first
        gathered = cast("Tensor", self.all_gather(vectors)).view(-1, *vectors.shape)
        self.network.quantizer.restart(dead, gathered[0])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the discriminator unchanged before its first step; with gradients of zero its weights would decay."""
        if self.discriminator is not None and not self.discriminator_config.factor(self.global_step):
            for parameter in self.discriminator.parameters():
                parameter.grad = None
        super().on_before_optimizer_step(optimizer)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradients of the tokenizer and those of the discriminator, each by their own norm (or by value)."""
        if not gradient_clip_val:
            return
        for part in self.trained():
            if gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(part.parameters(), gradient_clip_val)
            else:
                nn.utils.clip_grad_norm_(part.parameters(), gradient_clip_val)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics ``val/...``."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics ``test/...``."""
        self._evaluate("test", batch)

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics, which an interrupted validation may have updated."""
        self.reconstructions["val"].reset()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics ``val/...`` and, during ``fit``, check the usage of codes."""
        self._log_reconstructions("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics ``test/...``."""
        self._log_reconstructions("test")

    def _evaluate(self, prefix: str, batch: Batch) -> None:
        real = self.codec.to_planes(batch["canvas"])
        self.reconstructions[prefix].update(batch["canvas"], real, self.network(real), **self._tools)

    def _log_reconstructions(self, prefix: str) -> None:
        metrics = self.reconstructions[prefix]
        scores = metrics.compute()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.usage_alarm.check(scores)
        for name, value in scores.items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "psnr")
        metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Encode a batch, in float32.

        Returns:
            The entries of the batch, with ``tokens`` of all scales, int64 ``[B, L]``, in place of its canvas.
        """
        tokens = torch.cat(encode(self.network, self.codec, batch["canvas"]), dim=1)
        return {name: value for name, value in batch.items() if name != "canvas"} | {"tokens": tokens}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the sides of the token maps, which the weights do not show, in the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["patch_nums"] = list(self.network.patch_nums)

    def token_metadata(self) -> dict[str, Any]:
        """Return what a cache stores of the tokenizer, see :func:`lit_models.tokenizer.data_checks.token_metadata`."""
        return token_metadata(self.network)

    def parameters_by_level(self) -> Mapping[str, list[nn.Parameter]]:
        """Return the parameters of ``encoder``, ``quantizer``, ``decoder`` and ``discriminator``."""
        parts: dict[str, list[nn.Module]] = {
            "encoder": [self.network.encoder, self.network.quant_conv],
            "quantizer": [self.network.quantizer],
            "decoder": [self.network.post_quant_conv, self.network.decoder],
        }
        if self.discriminator is not None:
            parts["discriminator"] = [self.discriminator]
        return {name: [p for module in modules for p in module.parameters()] for name, modules in parts.items()}

    def _apply(self, fn: Convert, recurse: bool = True) -> Self:
        fn = at_least_float32(fn)  # in half precision, tokens would differ from those that transformers are trained on
        super()._apply(fn, recurse)
        for tool in self._tools.values():
            if tool is not None:
                tool._apply(fn, recurse)
        return self
