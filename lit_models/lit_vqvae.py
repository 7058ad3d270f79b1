"""Training and evaluation of VAR's multi-scale tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from lit_models.base import LitModule
from lit_models.optimization import Optimization
from lit_models.tokenizer.codebook import report
from lit_models.tokenizer.data_checks import check_canvas, token_facts
from lit_models.tokenizer.encoding import codec_of, encode
from lit_models.tokenizer.options import DiscriminatorConfig, TokenizerLoss
from lit_models.tokenizer.perceptual import PerceptualLoss
from lit_models.tokenizer.reconstruction import ReconstructionMetrics
from litscale.models.precision import Convert, at_least_float32
from litscale.models.var import VQVAE, Discriminator, VQOutput
from litscale.models.var.autoencoder import ResidualBlock, SpatialAttention
from litscale.models.var.discriminator import adaptive_weight, consistency_loss, hinge_loss

LOSS, NO_DISCRIMINATOR = TokenizerLoss(), DiscriminatorConfig()


class LitVQVAE(LitModule):
    """Trains the multi-scale tokenizer on images or piano rolls; evaluates it; ``predict`` gives tokens.

    The discriminator learns in the same backward pass as the tokenizer: its loss sees the reconstruction without
    gradient, the adversarial loss sees its weights without gradient. The steps are those of two optimisers that take
    turns on the same reconstruction, and accumulation, loss scaling, DDP and resuming work as for any other module.
    Gradients of the two are clipped by their own norms.

    The tokenizer stays in float32 under ``trainer.precision`` bf16-true and 16-true, so its tokens and scores do too.

    Codes that no scale used since the last time are replaced, every ``restart_every`` steps, by what the batch at hand
    looked up, of all scales alike often.

    Args:
        network: the tokenizer.
        optimization: learning rate, schedule, weight decay, of the discriminator too.
        loss: what a reconstruction is judged by.
        discriminator: the patch discriminator that judges reconstructions; a weight of 0 leaves it out.
        restart_every: optimiser steps between replacements of unused codes, 0 for none.
        restart_until: step after which no codes are replaced any more; null = never.
        codec: what the tokenizer's channels stand for: rgb, gray, binary, velocity or onset_hold; null = rgb for three
            channels, gray for one.
        velocity_bins: of the data, for velocity and onset_hold.
        features: extractor for rFID in evaluation (see `litscale.metrics.features`), or null.
        compile_blocks: compile the residual and attention blocks of encoder and decoder (``torch.compile``).

    Raises:
        ValueError: the codec has another number of planes than the tokenizer channels, or an option is out of range.
        FileNotFoundError: there is no file of perceptual weights.
    """

    drawn: Tensor
    shardable = True

    def __init__(
        self,
        network: VQVAE,
        optimization: Optimization = Optimization(),
        loss: TokenizerLoss = LOSS,
        discriminator: DiscriminatorConfig = NO_DISCRIMINATOR,
        restart_every: int = 100,
        restart_until: int | None = None,
        codec: str | None = None,
        velocity_bins: int = 127,
        features: nn.Module | None = None,
        compile_blocks: bool = False,
    ) -> None:
        super().__init__()
        if restart_every < 0:
            raise ValueError(f"restart_every must not be negative, got {restart_every}; 0 is never")
        self.network = network
        self.optimization, self.loss, self.discriminator_config = optimization, loss, discriminator
        self.restart_every, self.restart_until = restart_every, restart_until
        self.codec = codec_of(network, codec, velocity_bins)
        self.discriminator = None
        if discriminator.weight:
            self.discriminator = Discriminator(network.in_channels, discriminator.width, discriminator.layers)
        self.register_buffer("drawn", torch.zeros(network.vocab, dtype=torch.long))  # since the last restart
        perceptual = None
        if loss.perceptual_weights is not None:
            if network.in_channels not in (1, 3):
                raise ValueError(f"LPIPS compares images of 1 or 3 channels, not {network.in_channels}: leave it out")
            perceptual = PerceptualLoss(loss.perceptual_net, loss.perceptual_weights)
        # tools, not parts: they follow the module to its device, and are in neither parameters nor checkpoints
        self._tools = {"lpips": perceptual, "extractor": features}
        stages = (ReconstructionMetrics(network, self.codec, perceptual is not None, features) for _ in range(2))
        self.reconstructions = nn.ModuleDict(dict(zip(("val", "test"), stages, strict=True)))
        self._queries: list[Tensor] = []
        if compile_blocks:
            self.compile_each_block()

    def trained(self) -> list[nn.Module]:
        """The tokenizer and its discriminator."""
        return [self.network] if self.discriminator is None else [self.network, self.discriminator]

    def blocks(self) -> list[nn.Module]:
        """The residual and attention blocks of encoder and decoder."""
        return [part for part in self.network.modules() if isinstance(part, ResidualBlock | SpatialAttention)]

    def setup(self, stage: str) -> None:
        """Check the precision, and that the data's canvases fit the tokenizer.

        Raises:
            ValueError: channels, sides or alphabet differ; the options to change are named.
        """
        super().setup(stage)
        check_canvas(self.network, self.codec, self.trainer.datamodule)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Losses of a batch, with a report for callbacks.

        It holds ``loss/<term>``, ``usage/scale_<k>``, ``perplexity/scale_<k>`` (running averages over about a hundred
        steps) and, with a discriminator, ``adversarial_weight``.
        """
        real = self.codec.to_planes(batch["canvas"])
        out = self.network(real)
        self._count(out)
        terms = self._reconstruction(real, out.images.float())
        loss = sum(getattr(self.loss, name) * value for name, value in terms.items())
        terms |= {"codebook": out.codebook_loss, "commitment": out.commitment_loss}
        total = loss + self.loss.quantizer * out.loss
        weights = {}
        if self.discriminator is not None:
            judged, opposed, weight = self._judge(self.discriminator, real, out.images, loss)
            terms |= {"adversarial": judged, "discriminator": opposed}
            weights["adversarial_weight"] = weight
            total = total + weight * judged + opposed
        total = self.finite(total)
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True)
        named = {f"loss/{name}": value.detach() for name, value in terms.items()} | weights
        return {"loss": total, "report": named | report(self.network.quantizer.hits)}

    def _reconstruction(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Terms of the reconstruction loss, by the option that weighs them."""
        terms = {"l1": F.l1_loss(made, real), "l2": F.mse_loss(made, real)}
        lpips = self._tools["lpips"]
        if self.loss.perceptual and lpips is not None:
            terms["perceptual"] = lpips(made, real).mean()
        return terms

    def _judge(
        self, discriminator: Discriminator, real: Tensor, made: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adversarial loss, the discriminator's loss, and the weight of the former."""
        factor = self.discriminator_config.factor(self.global_step)
        zero = loss.new_zeros(())
        if not factor:
            # every process must have a gradient for every parameter
            return zero, discriminator(real[:1]).float().sum() * 0, zero
        images = (real, made.detach())
        verdicts = [discriminator(image) for image in images]
        judged = -discriminator.frozen(made).mean()  # after a forward, which gathers sharded weights
        weight = loss.new_tensor(self.discriminator_config.weight * factor)
        if self.discriminator_config.adaptive:
            last = self.network.decoder.conv_out.weight
            gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (loss, judged)]
            shared = self.trainer.strategy.reduce(torch.stack(gradients), reduce_op="mean")
            weight = weight * adaptive_weight(shared[0], shared[1])
        opposed = hinge_loss(*verdicts)
        if self.discriminator_config.consistency:
            changes = [
                consistency_loss(discriminator, image, seen) for image, seen in zip(images, verdicts, strict=True)
            ]
            opposed = opposed + self.discriminator_config.consistency * sum(changes)
        return judged, opposed, weight

    @torch.no_grad()
    def _count(self, out: VQOutput) -> None:
        """Note which codes the batch used, over all processes, and what it looked up."""
        counts = self.trainer.strategy.reduce(out.counts, reduce_op="sum")
        self.network.quantizer.record_hits(counts)
        self.drawn += counts.sum(0)
        self._queries = out.queries

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step, then restart dead codes where it is time: before any callback saves a checkpoint of this step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        step = self.global_step + 1
        late = self.restart_until is not None and step > self.restart_until
        if self.restart_every and step % self.restart_every == 0 and not late:
            self._restart()

    @torch.no_grad()
    def _restart(self) -> None:
        dead = (self.drawn == 0).nonzero()[:, 0]  # the same on all processes
        self.drawn.zero_()
        if not len(dead):
            return
        scale = torch.randint(len(self._queries), (len(dead),), device=dead.device)
        vectors = self._queries[0].new_empty(len(dead), self.network.dim)
        for k, queries in enumerate(self._queries):
            rows = queries.flatten(0, 1)
            here = scale == k
            vectors[here] = rows[torch.randint(len(rows), (int(here.sum()),), device=rows.device)]
        gathered = self.all_gather(vectors).view(-1, *vectors.shape)
        self.network.quantizer.restart(dead, gathered[0])

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Leave the discriminator as it is before its start: gradients of 0 would still let its weights decay."""
        if self.discriminator is not None and not self.discriminator_config.factor(self.global_step):
            for parameter in self.discriminator.parameters():
                parameter.grad = None
        super().on_before_optimizer_step(optimizer)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the tokenizer's and the discriminator's gradients by their own norms."""
        if not gradient_clip_val:
            return
        for part in self.trained():
            if gradient_clip_algorithm == "value":
                nn.utils.clip_grad_value_(part.parameters(), gradient_clip_val)
            else:
                nn.utils.clip_grad_norm_(part.parameters(), gradient_clip_val)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Take in a batch for ``val/``."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Take in a batch for ``test/``."""
        self._evaluate("test", batch)

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted validation took in."""
        self.reconstructions["val"].reset()

    def on_validation_epoch_end(self) -> None:
        """Log ``val/``."""
        self._log_reconstructions("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/``."""
        self._log_reconstructions("test")

    def _evaluate(self, prefix: str, batch: dict[str, Any]) -> None:
        real = self.codec.to_planes(batch["canvas"])
        self.reconstructions[prefix].update(batch["canvas"], real, self.network(real), **self._tools)

    def _log_reconstructions(self, prefix: str) -> None:
        metrics = self.reconstructions[prefix]
        for name, value in metrics.compute().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "psnr")
        metrics.reset()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Tokens of a batch, in full precision.

        Args:
            batch: ``canvas`` uint8 ``[B, C, H, W]``; the rest is passed on.
            batch_idx: unused.

        Returns:
            ``tokens`` int64 ``[B, L]``, all scales joined, and all of the batch but its canvas.
        """
        tokens = torch.cat(encode(self.network, self.codec, batch["canvas"]), dim=1)
        return {name: value for name, value in batch.items() if name != "canvas"} | {"tokens": tokens}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the scales, which the weights do not show."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["patch_nums"] = list(self.network.patch_nums)

    def token_facts(self) -> dict[str, Any]:
        """What a cache must say of its tokens, see :func:`lit_models.tokenizer.data_checks.token_facts`."""
        return token_facts(self.network)

    def parameters_by_level(self) -> Mapping[str, list[nn.Parameter]]:
        """Parameters of ``encoder``, ``quantizer``, ``decoder`` and ``discriminator``."""
        parts = {
            "encoder": [self.network.encoder, self.network.quant_conv],
            "quantizer": [self.network.quantizer],
            "decoder": [self.network.post_quant_conv, self.network.decoder],
        }
        if self.discriminator is not None:
            parts["discriminator"] = [self.discriminator]
        return {name: [p for module in modules for p in module.parameters()] for name, modules in parts.items()}

    def _apply(self, fn: Convert, recurse: bool = True) -> Self:
        fn = at_least_float32(fn)  # half precision would give other tokens than those that transformers are trained on
        super()._apply(fn, recurse)
        for tool in self._tools.values():
            if tool is not None:
                tool._apply(fn, recurse)
        return self
