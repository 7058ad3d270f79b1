"""Ways to make images with a draft and a target, under one call.

Suffixes: B images, S scales, n tokens of a scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from litscale.models.modes import evaluating
from litscale.models.sdvar.clock import Stopwatch
from litscale.models.sdvar.masks import check_mask, prefix_mask
from litscale.models.sdvar.report import DecodeReport, Round
from litscale.models.sdvar.state import Stream, draw_scale
from litscale.models.var import VAR, VQVAE, Sampling
from litscale.models.var.sampling import classes_and_seed


@dataclass(frozen=True)
class Decoded:
    """Result of decoding.

    Attributes:
        images: ``[B, C, H, W]`` in [0, 1].
        tokens: int64 ``[B, n]`` of each scale.
        report: what it took.
    """

    images: Tensor
    tokens: list[Tensor]
    report: DecodeReport


@dataclass
class Task:
    """A batch to decode, and the record of it.

    Attributes:
        labels: int64 ``[B]``.
        images: number of each image, int64 ``[B]``.
        options: how to draw.
        watch: the clock.
        rounds: the trace.
        margin: see :class:`litscale.models.sdvar.DecodeReport`.
    """

    labels: Tensor
    images: Tensor
    options: Sampling
    watch: Stopwatch
    rounds: list[Round] = field(default_factory=list)
    margin: float = float("inf")


class Decoder(ABC):
    """Makes images of class labels.

    Args:
        models: the networks in use, one or two with the same tokenizer.
        vqvae: that tokenizer; the models bring it along, so it need not be given.

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

    @torch.no_grad()
    def decode(
        self,
        labels: Tensor | Sequence[int] | None = None,
        cfg: float = 1.5,
        top_k: int = 0,
        top_p: float = 0.0,
        seed: int | None = None,
        *,
        temperature: float = 1.0,
        image_index: Tensor | None = None,
        batch_size: int = 1,
        profile: bool = False,
    ) -> Decoded:
        """Make images; the arguments are those of :meth:`litscale.models.var.VAR.sample`, and apply to both networks.

        Args:
            labels: classes, int64 ``[B]``, -1 for no class; none for ``batch_size`` images without class.
            cfg: guidance at the last scale, 0 for none.
            top_k: draw among the k likeliest tokens, 0 for all.
            top_p: draw among the likeliest tokens that hold this share of the probability, 0 for all.
            seed: of the noise; without one it is taken from torch's generator.
            temperature: divides the logits.
            image_index: number of each image, int64 ``[B]``, which keys its noise; 0, 1, ... without it.
            batch_size: of images without class.
            profile: on an accelerator, also time the parts (:class:`litscale.models.sdvar.DecodeReport`).

        Raises:
            ValueError: labels or an option out of range.
        """
        device = self.models[0].pos_emb.device
        classes, seed = classes_and_seed(labels, seed, batch_size, device)
        if not len(classes):
            raise ValueError("labels are empty; give at least one, or none for images without class")
        images = torch.arange(len(classes), device=device) if image_index is None else image_index.to(device)
        options = Sampling(cfg, top_k, top_p, temperature, seed=seed)
        task = Task(classes, images, options, Stopwatch(device, profile))
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(evaluating(model))
            self._prepare(task)
            with task.watch.whole():
                tokens, f_hat = self._make(task)
                with task.watch.part("vae"):
                    pictures = self.vqvae.decode(f_hat).add(1).div(2)
        report = DecodeReport(self.scales, len(classes), tuple(task.rounds), task.watch.seconds, task.margin)
        return Decoded(pictures, tokens, report)

    def _prepare(self, task: Task) -> None:
        """What has to be done before the clock starts."""
        return

    @abstractmethod
    def _make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        """Tokens int64 ``[B, n]`` of each scale, and the accumulation of all ``[B, dim, h, h]``."""

    def _open(self, model: VAR, task: Task) -> Stream:
        return Stream.open(model, task.labels, task.options.cfg > 0)

    def _draw(self, task: Task, model: VAR, raw: Tensor, tokens: list[Tensor], f_hats: list[Tensor]) -> None:
        """Draw the next scale from a network's logits and append it."""
        k = len(tokens)
        with task.watch.part("sampling"):
            tokens.append(draw_scale(model, raw, k, task.options, task.images).tokens)
        with task.watch.part("vae"):
            f_hats.append(self.vqvae.quantizer.accumulate(f_hats[-1], tokens[-1], k))


class Handoff(Decoder):
    """The draft makes the first scales, the target reads them in one call and makes the others.

    No scale is checked, so this is lossy: the picture's layout is the draft's. With the models swapped, a large one
    opens and a small one refines (collaborative decoding, as in arXiv 2411.17787).

    With ``entry_num`` 0 it is :class:`TargetOnly`, with S it is :class:`DraftOnly`. Otherwise the mask covers the
    draft's scales and the hand-over scale in the target's first call; later scales see all of them. Only ``causal`` is
    what the target was trained with.

    Args:
        draft: makes the first scales.
        target: makes the others.
        vqvae: their tokenizer; it need not be given.
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

    def _make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        tokens: list[Tensor] = []
        f_hats = [self.vqvae.quantizer.start(len(task.labels))]
        entry = self.entry_num
        if entry:
            with task.watch.part("draft"):
                stream = self._open(self.draft, task)
            for k in range(entry):
                with task.watch.part("draft"):
                    raw = stream.read(f_hats[k:])[-1]
                self._draw(task, self.draft, raw, tokens, f_hats)
        mask = None
        if entry < self.scales:
            with task.watch.part("target"):
                stream = self._open(self.target, task)
            if entry:
                mask = prefix_mask(self.mask, self.target.patch_nums, entry).to(task.labels.device)
            for k in range(entry, self.scales):
                with task.watch.part("target"):
                    raw = stream.read(f_hats[stream.scale :], mask if k == entry else None)[-1]
                self._draw(task, self.target, raw, tokens, f_hats)
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
                    judged=False,
                )
            )


class TargetOnly(Handoff):
    """The target alone: the images of :meth:`litscale.models.var.VAR.sample`, in S calls.

    Args:
        target: the network.
        vqvae: its tokenizer; it need not be given.

    Raises:
        ValueError: another tokenizer than the network's.
    """

    def __init__(self, target: VAR, vqvae: VQVAE | None = None) -> None:
        super().__init__(target, target, vqvae, entry_num=0)


class DraftOnly(Handoff):
    """The draft alone, in no call of the target.

    Args:
        draft: the network.
        vqvae: its tokenizer; it need not be given.

    Raises:
        ValueError: another tokenizer than the network's.
    """

    def __init__(self, draft: VAR, vqvae: VQVAE | None = None) -> None:
        super().__init__(draft, draft, vqvae, entry_num=draft.scales)


def same_tokenizer(first: VQVAE, second: VQVAE) -> bool:
    """Whether two tokenizers have the same scales, codes and weights; how often codes were used does not matter."""
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
