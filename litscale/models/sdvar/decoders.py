"""Decoders: ways to generate images with a draft and a target, under one call.

Dimensions: B images, S scales, n tokens of a scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from litscale.models.modes import evaluating
from litscale.models.sdvar.clock import Stopwatch
from litscale.models.sdvar.described import Described
from litscale.models.sdvar.masks import check_mask, prefix_mask
from litscale.models.sdvar.report import DecodeReport, Round
from litscale.models.sdvar.state import NetworkState, draw_scale
from litscale.models.var import VAR, VQVAE, VARGeneration
from litscale.models.var.generate import PLAIN, filled_in


@dataclass(frozen=True)
class Decoded:
    """Result of decoding.

    Attributes:
        images: ``[B, C, H, W]`` in [0, 1].
        tokens: int64 ``[B, n]`` of each scale.
        report: calls, accepted scales and seconds of the run.
    """

    images: Tensor
    tokens: list[Tensor]
    report: DecodeReport


@dataclass
class Task:
    """A batch to decode, and the record of the run.

    Attributes:
        labels: int64 ``[B]``.
        images: number of each image, int64 ``[B]``.
        options: how tokens are drawn.
        seed: of the noise.
        watch: the stopwatch.
        rounds: what has been done so far.
        margin: see :class:`litscale.models.sdvar.DecodeReport`.
    """

    labels: Tensor
    images: Tensor
    options: VARGeneration
    seed: int
    watch: Stopwatch
    rounds: list[Round] = field(default_factory=list)
    margin: float = float("inf")


class Decoder(Described, ABC):
    """Generates images of classes. A new decoder is a subclass, given as class_path; see :class:`DecoderFactory`.

    Args:
        models: the draft and the target, with the same tokenizer.
        vqvae: that tokenizer, if it is to be compared with the one that the models hold.

    Raises:
        ValueError: different scales, vocabularies or tokenizers.
    """

    def __init__(self, models: Sequence[VAR], vqvae: VQVAE | None = None) -> None:
        self.models = tuple(models)
        first, last = self.models[0], self.models[-1]
        if first.patch_nums != last.patch_nums:
            raise ValueError(f"draft and target have different patch_nums: {first.patch_nums} and {last.patch_nums}")
        if first.vocab != last.vocab:
            raise ValueError(f"draft and target have different vocabularies: {first.vocab} and {last.vocab} codes")
        if not same_tokenizer(first.vqvae, last.vqvae):
            raise ValueError("draft and target have different tokenizers; both must be trained on the tokens of one")
        if vqvae is not None and not same_tokenizer(vqvae, last.vqvae):
            raise ValueError("vqvae is not the models' tokenizer; leave it out, the models hold theirs")
        self.vqvae = last.vqvae

    @property
    def scales(self) -> int:
        """Number of scales S."""
        return self.models[0].scales

    @property
    def lossless(self) -> bool:
        """Whether the images have the target's own distribution, whatever earlier runs have taught the decoder."""
        return False

    def reset(self) -> None:
        """Forget what was learned in earlier runs."""
        return

    @torch.no_grad()
    def decode(
        self,
        labels: Tensor | Sequence[int] | None = None,
        options: VARGeneration = PLAIN,
        seed: int | None = None,
        *,
        image_index: Tensor | None = None,
        batch_size: int = 1,
        profile: bool = False,
    ) -> Decoded:
        """Generate images; the arguments are those of :func:`litscale.models.var.generate`, for both networks alike.

        Args:
            labels: classes, int64 ``[B]``, -1 for no class; none for ``batch_size`` images without class.
            options: how tokens are drawn; greedy and smooth must be false.
            seed: of the noise; without one it is taken from torch's generator.
            image_index: number of each image, int64 ``[B]``, which keys its noise; 0, 1, ... without it.
            batch_size: of images without class.
            profile: on an accelerator, also time the parts (:class:`litscale.models.sdvar.DecodeReport`).

        Raises:
            ValueError: labels that are no integers ``[B]`` or out of range, an image_index of another shape, or an
                option that decoders do not have.
        """
        check_options(options)
        device = self.models[0].pos_emb.device
        classes, images, seed = filled_in(self.models[0], labels, image_index, seed, batch_size)
        task = Task(classes, images, options, seed, Stopwatch(device, profile))
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(evaluating(model))
            self.prepare(task)
            with task.watch.whole():
                tokens, f_hat = self.make(task)
                with task.watch.part("vae"):
                    pictures = self.vqvae.decode(f_hat).add(1).div(2)
        report = DecodeReport(self.scales, len(classes), tuple(task.rounds), task.watch.seconds, task.margin)
        return Decoded(pictures, tokens, report)

    def prepare(self, task: Task) -> None:
        """Do what has to be done before the clock starts."""
        return

    @abstractmethod
    def make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        """Generate the tokens, and record the calls in ``task.rounds``.

        Returns:
            Tokens int64 ``[B, n]`` of each scale, and the accumulation of all ``[B, dim, h, h]``.
        """

    def open(self, model: VAR, task: Task) -> NetworkState:
        """Return the state of a network that has read no scale of the images yet."""
        return NetworkState.open(model, task.labels, task.options.cfg > 0)

    def add_scale(self, task: Task, model: VAR, raw: Tensor, tokens: list[Tensor], f_hats: list[Tensor]) -> None:
        """Draw the next scale from a network's logits.

        Args:
            task: the batch.
            model: the network.
            raw: its logits of that scale, see :meth:`litscale.models.sdvar.state.NetworkState.read`.
            tokens: of the scales before; the new ones are appended.
            f_hats: the accumulation before each scale; that after the new one is appended.
        """
        k = len(tokens)
        with task.watch.part("sampling"):
            tokens.append(draw_scale(model, raw, k, task.options, task.seed, task.images).tokens)
        with task.watch.part("vae"):
            f_hats.append(self.vqvae.quantizer.accumulate(f_hats[-1], tokens[-1], k))


class CollaborativeDecoding(Decoder):
    """The draft makes the first scales, the target reads them in one call and makes the others (arXiv 2411.17787).

    No scale is verified, so this is lossy: the picture's layout is the draft's. With the models swapped, a large one
    opens and a small one refines.

    With ``entry_num`` 0 it is :class:`TargetOnly`, with S it is :class:`DraftOnly`. Otherwise the mask covers the
    draft's scales and the target's first one in the target's first call; later scales see all of them. Only ``causal``
    is what the target was trained with.

    Args:
        draft: makes the first scales.
        target: makes the others.
        vqvae: their tokenizer; may be left out.
        entry_num: number of the draft's scales, 0..S.
        mask: one of :data:`litscale.models.sdvar.MASKS`, see :func:`litscale.models.sdvar.prefix_mask`.

    Raises:
        ValueError: the models do not fit together, unknown mask, or entry_num outside 0..S.
    """

    def __init__(
        self, draft: VAR, target: VAR, vqvae: VQVAE | None = None, entry_num: int = 2, mask: str = "causal"
    ) -> None:
        super().__init__((draft, target), vqvae)
        check_mask(mask)
        if not 0 <= entry_num <= self.scales:
            raise ValueError(f"entry_num must be in 0..{self.scales}, the number of scales, not {entry_num}")
        self.draft, self.target, self.entry_num, self.mask = draft, target, entry_num, mask

    def __str__(self) -> str:
        alone = {0: "target only", self.scales: "draft only"}
        return alone.get(self.entry_num, f"collaborative (entry_num {self.entry_num}, {self.mask})")

    def make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        # 1. the draft's scales, one by one
        tokens: list[Tensor] = []
        f_hats = [self.vqvae.quantizer.start(len(task.labels))]
        entry = self.entry_num
        if entry:
            with task.watch.part("draft"):
                state = self.open(self.draft, task)
            for k in range(entry):
                with task.watch.part("draft"):
                    raw = state.read(f_hats[k:])[-1]
                self.add_scale(task, self.draft, raw, tokens, f_hats)
        # 2. the target's: its first call reads the draft's scales, too
        mask = None
        if entry < self.scales:
            with task.watch.part("target"):
                state = self.open(self.target, task)
            if entry:
                mask = prefix_mask(self.mask, self.target.patch_nums, entry).to(task.labels.device)
            for k in range(entry, self.scales):
                with task.watch.part("target"):
                    raw = state.read(f_hats[state.scale :], mask if k == entry else None)[-1]
                self.add_scale(task, self.target, raw, tokens, f_hats)
        # 3. the record
        self._trace(task)
        return tokens, f_hats[-1]

    def _trace(self, task: Task) -> None:
        """Record the draft's scales with the call that takes them over, then the target's scales one by one."""
        images, bounds, entry = tuple(range(len(task.labels))), self.target.bounds, self.entry_num
        for k in range(entry, max(self.scales, entry + 1)):
            drafted = entry if k == entry else 0
            end = min(k + 1, self.scales)
            task.rounds.append(
                Round(
                    images=images,
                    first=k - drafted,
                    drafted=drafted,
                    accepted=(drafted,) * len(images),
                    kept=(end - k + drafted,) * len(images),
                    draft_tokens=bounds[drafted],
                    target_tokens=bounds[end] - bounds[k - drafted] if k < self.scales else 0,
                    verified=False,
                )
            )


class TargetOnly(CollaborativeDecoding):
    """The target alone: the images of :func:`litscale.models.var.generate`, in S calls.

    Args:
        target: the network.
        vqvae: its tokenizer; may be left out.
        draft: not used; given to each decoder of a pair.

    Raises:
        ValueError: another tokenizer than the network's.
    """

    def __init__(self, target: VAR, vqvae: VQVAE | None = None, draft: VAR | None = None) -> None:
        super().__init__(target if draft is None else draft, target, vqvae, entry_num=0)


class DraftOnly(CollaborativeDecoding):
    """The draft alone, in no call of the target.

    Args:
        draft: the network.
        vqvae: its tokenizer; may be left out.
        target: not used; given to each decoder of a pair.

    Raises:
        ValueError: another tokenizer than the network's.
    """

    def __init__(self, draft: VAR, vqvae: VQVAE | None = None, target: VAR | None = None) -> None:
        super().__init__(draft, draft if target is None else target, vqvae, entry_num=draft.scales)


class DecoderFactory(Protocol):
    """Makes a decoder of a pair: a class of decoders whose constructor has the arguments ``draft`` and ``target``."""

    def __call__(self, *, draft: VAR, target: VAR) -> Decoder:
        """Make the decoder of two networks."""


def check_options(options: VARGeneration) -> None:
    """Refuse options of generation that decoders do not have.

    Raises:
        ValueError: greedy or smooth is set.
    """
    if options.greedy or options.smooth:
        raise ValueError("decoders need greedy and smooth to be false: top_k 1 takes the likeliest tokens")


def same_tokenizer(first: VQVAE, second: VQVAE) -> bool:
    """Return whether two tokenizers have the same scales, codes and weights; usage counts do not matter."""
    if first is second:
        return True
    settings = [(q.patch_nums, q.phi_share, q.phi_count) for q in (first.quantizer, second.quantizer)]
    weights = [dict(model.named_parameters()) for model in (first, second)]
    return (
        settings[0] == settings[1]
        and weights[0].keys() == weights[1].keys()
        and all(
            torch.equal(weights[0][name], tensor.to(weights[0][name].device)) for name, tensor in weights[1].items()
        )
    )
