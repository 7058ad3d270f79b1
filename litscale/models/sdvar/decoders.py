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
from litscale.models.sdvar.state import draw_scale
from litscale.models.var import VAR, VQVAE, NetworkState, Pass, VARGeneration
from litscale.models.var.generate import filled_in
from litscale.models.var.generation_options import PLAIN


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
        seed: seed of the noise.
        watch: the stopwatch.
        rounds: the rounds so far.
        passes: the passes of both networks so far; the states of :meth:`Decoder.open` record theirs.
        margin: see :class:`litscale.models.sdvar.DecodeReport`.
    """

    labels: Tensor
    images: Tensor
    options: VARGeneration
    seed: int
    watch: Stopwatch
    rounds: list[Round] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    margin: float = float("inf")


class Decoder(Described, ABC):
    """Generates images of classes. A new decoder is a subclass, given as class_path; see :class:`DecoderFactory`.

    Args:
        models: the draft and the target, with the same tokenizer.
        vqvae: that tokenizer, if it is to be compared with the one that the models hold.

    Raises:
        TypeError: a model is no VAR, such as another decoder.
        ValueError: different scales, vocabularies or tokenizers.
    """

    def __init__(self, models: Sequence[VAR], vqvae: VQVAE | None = None) -> None:
        self.models = tuple(models)
        for model in self.models:
            if not isinstance(model, VAR):
                raise TypeError(f"draft and target of {type(self).__name__} must be VAR, not {type(model).__name__}")
        first, last = self.models[0], self.models[-1]
        if first.patch_nums != last.patch_nums:
            raise ValueError(f"draft and target have different patch_nums: {first.patch_nums} and {last.patch_nums}")
        if first.vocab != last.vocab:
            raise ValueError(f"draft and target have different vocabularies: {first.vocab} and {last.vocab} codes")
        if not same_tokenizer(first.vqvae, last.vqvae):
            raise ValueError("draft and target have different tokenizers; both must be trained with the same tokenizer")
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
        """Forget what the decoder has learned in earlier runs."""
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
        """Generate images; arguments are as in :func:`litscale.models.var.generate`, the same for both networks.

        Args:
            labels: classes, int64 ``[B]``, -1 for no class; none for ``batch_size`` images without class.
            options: how tokens are drawn; greedy and smooth must be false.
            seed: seed of the noise; None draws one from torch's generator.
            image_index: number of each image, int64 ``[B]``, which keys its noise; 0, 1, ... without it.
            batch_size: number of images without class.
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
        rounds, passes = tuple(task.rounds), tuple(task.passes)
        report = DecodeReport(
            self.scales, len(classes), rounds, seconds=task.watch.seconds, margin=task.margin, passes=passes
        )
        return Decoded(pictures, tokens, report)

    def prepare(self, task: Task) -> None:
        """Prepare a run; the time that this takes is not measured."""
        return

    @abstractmethod
    def make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        """Generate the tokens, and record the calls in ``task.rounds``.

        Returns:
            Tokens int64 ``[B, n]`` of each scale, and the accumulation of all ``[B, dim, h, h]``.
        """

    def open(self, model: VAR, task: Task, role: str | None = None) -> NetworkState:
        """Return the state of a network that has read no scale of the images yet.

        Args:
            model: the network.
            task: the batch, whose record its passes join.
            role: ``draft`` or ``target``, for the record; by default the last of the decoder's models is the target.
        """
        if role is None:
            role = "target" if model is self.models[-1] else "draft"
        return NetworkState.open(model, task.labels, task.options, role, task.passes)

    def add_scale(self, task: Task, model: VAR, raw: Tensor, tokens: list[Tensor], f_hats: list[Tensor]) -> None:
        """Draw the next scale from a network's logits.

        Args:
            task: the batch.
            model: the network.
            raw: its logits of that scale, see :meth:`litscale.models.var.network_state.NetworkState.read`.
            tokens: tokens of the scales before; the new ones are appended.
            f_hats: the accumulation before each scale; that after the new scale is appended.
        """
        k = len(tokens)
        with task.watch.part("sampling"):
            tokens.append(draw_scale(model, raw, k, task.options, seed=task.seed, images=task.images).tokens)
        with task.watch.part("vae"):
            f_hats.append(self.vqvae.quantizer.accumulate(f_hats[-1], tokens[-1], k))


class CollaborativeDecoding(Decoder):
    """One network makes the first scales; the other reads them in one call and makes the rest. No scale is verified.

    By default the draft opens, so that the picture's layout is its own; with ``target_first`` the target opens and the
    draft refines (:class:`Refine`). Either is lossy. With ``entry_num`` 0 or S one network makes all scales, as in
    :class:`TargetOnly` and :class:`DraftOnly`. The mask covers the scales of the opening network and the first one of
    the other in the latter's first call; later scales see all of them. Only ``causal`` is what networks are trained
    with.

    Args:
        draft: the small network.
        target: the large network.
        vqvae: their tokenizer; may be left out.
        entry_num: number of scales of the network that opens, 0..S.
        mask: one of :data:`litscale.models.sdvar.MASKS`, see :func:`litscale.models.sdvar.prefix_mask`.
        target_first: whether the target opens, instead of the draft.

    Raises:
        ValueError: the models do not fit together, unknown mask, or entry_num outside 0..S.
    """

    def __init__(
        self,
        draft: VAR,
        target: VAR,
        vqvae: VQVAE | None = None,
        entry_num: int = 2,
        mask: str = "causal",
        target_first: bool = False,
    ) -> None:
        super().__init__((draft, target), vqvae)
        check_mask(mask)
        if not 0 <= entry_num <= self.scales:
            raise ValueError(f"entry_num must be in 0..{self.scales}, the number of scales, not {entry_num}")
        self.draft, self.target, self.entry_num, self.mask = draft, target, entry_num, mask
        self.target_first = target_first

    def __str__(self) -> str:
        alone = {self.scales: "target", 0: "draft"} if self.target_first else {0: "target", self.scales: "draft"}
        if self.entry_num in alone:
            return f"{alone[self.entry_num]} only"
        first = ", target first" if self.target_first else ""
        return f"collaborative (entry_num {self.entry_num}, {self.mask}{first})"

    def make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        tokens: list[Tensor] = []
        f_hats = [self.vqvae.quantizer.start(len(task.labels))]
        # 1. who makes which scales
        turns = [("draft", self.draft), ("target", self.target)]
        spans = (range(self.entry_num), range(self.entry_num, self.scales))
        # 2. the scales, one by one; the first call of the second network reads those of the other, too
        for (role, model), span in zip(turns[:: -1 if self.target_first else 1], spans, strict=True):
            if not span:
                continue
            with task.watch.part(role):
                state = self.open(model, task, role)
            for k in span:
                state.settle(k)
                with task.watch.part(role):
                    mask = self._entry_mask(task) if k == self.entry_num and k > 0 else None
                    raw = state.read(f_hats[state.scale :], mask)[-1]
                self.add_scale(task, model, raw, tokens, f_hats)
        # 3. the record
        self._trace(task)
        return tokens, f_hats[-1]

    def _entry_mask(self, task: Task) -> Tensor | None:
        """Return the mask of the second network's first call; None for the default, the mask of training."""
        if self.mask == "causal":
            return None
        return prefix_mask(self.mask, self.target.patch_nums, self.entry_num).to(task.labels.device)

    def _trace(self, task: Task) -> None:
        """Record a round for each scale of the target, and put all scales of the draft, unverified, into one round.

        It is the round of the target's call that reads them first or, if the target opens, the last round.
        """
        entry, bounds = self.entry_num, self.target.bounds
        if self.target_first:
            rounds = [(k, 0, 1) for k in range(entry)] + (
                [(entry, self.scales - entry, 0)] if entry < self.scales else []
            )
        else:
            rounds = [(0, entry, int(entry < self.scales))] if entry else []
            rounds += [(k, 0, 1) for k in range(entry + len(rounds), self.scales)]
        images = tuple(range(len(task.labels)))
        for first, drafted, own in rounds:
            end = first + drafted + own
            task.rounds.append(
                Round(
                    images=images,
                    first=first,
                    drafted=drafted,
                    accepted=(drafted,) * len(images),
                    kept=(drafted + own,) * len(images),
                    draft_tokens=bounds[end - own] if drafted else 0,
                    target_tokens=bounds[end] - bounds[first] if own else 0,
                    verified=False,
                )
            )


class Refine(CollaborativeDecoding):
    """The target makes the first scales, the draft reads them in one call and makes the late ones (CoDe).

    Late scales hold most tokens and need the fewest parameters (collaborative decoding, arXiv 2411.17787), so this
    saves most of the arithmetic and keeps the target's layout. It is lossy; the draft can be trained on for the late
    scales (``scales`` of `lit_models.LitVAR` and `lit_models.LitSDVAR`). With ``large_scales`` S it is
    :class:`TargetOnly`, with 0 :class:`DraftOnly`.

    Args:
        draft: makes the late scales.
        target: makes the first scales.
        vqvae: their tokenizer; may be left out.
        large_scales: number of scales that the target makes, 0..S.

    Raises:
        ValueError: the models do not fit together, or large_scales outside 0..S.
    """

    def __init__(self, draft: VAR, target: VAR, vqvae: VQVAE | None = None, *, large_scales: int) -> None:
        if not 0 <= large_scales <= target.scales:
            raise ValueError(f"large_scales must be in 0..{target.scales}, the number of scales, not {large_scales}")
        super().__init__(draft, target, vqvae, large_scales, target_first=True)

    def __str__(self) -> str:
        alone = self.entry_num in (0, self.scales)
        return super().__str__() if alone else f"refine (large_scales {self.entry_num})"


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
        """Make the decoder of a draft and a target."""


def check_options(options: VARGeneration) -> None:
    """Refuse options of generation that decoders do not have.

    Raises:
        ValueError: greedy or smooth is set.
    """
    if options.greedy or options.smooth:
        raise ValueError("decoders need greedy and smooth to be false: top_k 1 takes the likeliest tokens")


def same_tokenizer(first: VQVAE, second: VQVAE) -> bool:
    """Return whether two tokenizers have the same scales, codes and weights; usage counts may differ."""
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
