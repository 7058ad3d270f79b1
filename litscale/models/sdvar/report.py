"""The record of a decoding run: calls, accepted scales, seconds."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor

from litscale.models.var import Pass

PARTS = ("wall", "draft", "target", "sampling", "vae")
"""Parts of ``DecodeReport.seconds``: everything, the two networks, noise and draws and verification, the tokenizer."""
LEGEND = {
    "d": "drafted and kept",
    "r": "redrawn by the target after a rejection",
    "t": "the target's own",
    ".": "drafted but discarded",
}
"""The marks of :meth:`Round.marks` and their meaning."""


@dataclass(frozen=True)
class Round:
    """One call of the target and the drafting before it, for images of which equally many scales were finished.

    Attributes:
        images: their places in the batch.
        first: scale that the round began with.
        drafted: number of scales that the draft proposed (gamma), and so its calls.
        accepted: number of these that were accepted, for each image.
        kept: number of scales that the round finished, for each image.
        draft_tokens: tokens that the draft read, for one image.
        target_tokens: tokens that the target read, for one image; 0 if it was not called.
        verified: whether a rule decided which scales are accepted; False where they were taken without one.
    """

    images: tuple[int, ...]
    first: int
    drafted: int
    accepted: tuple[int, ...]
    kept: tuple[int, ...]
    draft_tokens: int
    target_tokens: int
    verified: bool = True

    @property
    def target_calls(self) -> int:
        """Number of calls of the target: 1 or 0."""
        return int(self.target_tokens > 0)

    def marks(self, i: int) -> str:
        """Return a letter of :data:`LEGEND` for each drafted or finished scale of the round's ``i``-th image."""
        accepted, kept = self.accepted[i], self.kept[i]
        taken = min(accepted, kept)
        made = ("r" if accepted < self.drafted else "t") * (kept - taken)
        return "d" * taken + made + "." * (self.drafted - kept)


@dataclass(frozen=True)
class DecodeReport:
    """The counts of one or several decoding runs; all are sums over images, so that reports can be added.

    A call is one pass of a network for one image: a batch of 8 images in one pass counts as 8 calls. Tokens that are
    read count once, although guidance runs them twice; those that are computed count twice then.

    Attributes:
        scales: S.
        images: number of images.
        rounds: the trace, from which all counts come.
        seconds: by part, see :data:`PARTS`; on an accelerator only ``wall`` unless the run was profiled.
        margin: least lead, in logits, of a drawn token over the runner-up; measured where the rule returns the
            target's own tokens (:class:`litscale.models.sdvar.Coupled`). Where it is
            well above the rounding of the logits, the tokens are certainly those of the target alone.
        passes: what both networks computed, in order.
    """

    scales: int
    images: int
    rounds: tuple[Round, ...]
    _: KW_ONLY
    seconds: dict[str, float] = field(default_factory=dict)
    margin: float = float("inf")
    passes: tuple[Pass, ...] = ()

    def __add__(self, other: DecodeReport) -> DecodeReport:
        """Return the report of both runs together; images of ``other`` are numbered after those of this one.

        Raises:
            ValueError: the models have different numbers of scales.
        """
        if self.scales != other.scales:
            raise ValueError(f"reports of {self.scales} and {other.scales} scales cannot be added")
        moved = [replace(entry, images=tuple(i + self.images for i in entry.images)) for entry in other.rounds]
        return DecodeReport(
            self.scales,
            self.images + other.images,
            (*self.rounds, *moved),
            seconds={
                part: self.seconds.get(part, 0.0) + other.seconds.get(part, 0.0)
                for part in self.seconds | other.seconds
            },
            margin=min(self.margin, other.margin),
            passes=self.passes + other.passes,
        )

    @property
    def target_calls(self) -> int:
        """Calls of the target, over all images."""
        return sum(entry.target_calls * len(entry.images) for entry in self.rounds)

    @property
    def draft_calls(self) -> int:
        """Calls of the draft, over all images."""
        return sum(entry.drafted * len(entry.images) for entry in self.rounds)

    @property
    def target_passes(self) -> int:
        """Passes of the target, each for all images of a state."""
        return sum(entry.target_calls for entry in self.rounds)

    @property
    def target_tokens(self) -> int:
        """Tokens that the target read, over all images."""
        return sum(entry.target_tokens * len(entry.images) for entry in self.rounds)

    @property
    def draft_tokens(self) -> int:
        """Tokens that the draft read, over all images."""
        return sum(entry.draft_tokens * len(entry.images) for entry in self.rounds)

    @property
    def target_computed_tokens(self) -> int:
        """Tokens that the target computed, over all images; guidance computes each twice."""
        return sum(entry.tokens * entry.images for entry in self.passes if entry.role == "target")

    @property
    def draft_computed_tokens(self) -> int:
        """Tokens that the draft computed, over all images; guidance computes each twice."""
        return sum(entry.tokens * entry.images for entry in self.passes if entry.role == "draft")

    @property
    def flops(self) -> int:
        """Floating-point operations of both networks, over all images; see `litscale.models.var.Pass`."""
        return sum(entry.flops * entry.images for entry in self.passes)

    @property
    def accepted_scales(self) -> int:
        """Drafted scales that a rule accepted, over all images."""
        return int(self.accepted_by_scale.sum())

    @property
    def target_calls_by_image(self) -> Tensor:
        """Calls of the target for each image, int64 ``[images]``."""
        calls = torch.zeros(self.images, dtype=torch.long)
        for entry in self.rounds:
            calls[list(entry.images)] += entry.target_calls
        return calls

    @property
    def verified_by_scale(self) -> Tensor:
        """How often a rule verified each scale, int64 ``[S]``: drafted scales after the first rejected one are not."""
        return self._verified(1)

    @property
    def accepted_by_scale(self) -> Tensor:
        """How often a rule accepted each scale, int64 ``[S]``."""
        return self._verified(0)

    def _verified(self, extra: int) -> Tensor:
        counts = torch.zeros(self.scales, dtype=torch.long)
        for entry in self.rounds:
            for accepted in entry.accepted if entry.verified else ():
                counts[entry.first : entry.first + min(accepted + extra, entry.drafted)] += 1
        return counts

    def totals(self) -> dict[str, float]:
        """Return counts as numbers that may be summed over reports and processes before they are divided.

        They are the calls and computed tokens of both networks, ``flops``, images, ``accepted_scales``, seconds by
        part, and ``verified/scale_0``, ``accepted/scale_0``, ... The keys depend on the number of scales only.
        """
        names = ["images", "target_calls", "draft_calls", "target_computed_tokens", "draft_computed_tokens"]
        sums = {name: float(getattr(self, name)) for name in [*names, "flops", "accepted_scales"]}
        sums |= {f"seconds/{part}": self.seconds.get(part, 0.0) for part in PARTS}
        for name in ("verified", "accepted"):
            for k, count in enumerate(getattr(self, f"{name}_by_scale").tolist()):
                sums[f"{name}/scale_{k}"] = float(count)
        return sums

    def text(self, images: int = 8) -> str:
        """Return a timeline with a line for each image, bars between its rounds, and a letter for each scale.

        Args:
            images: largest number of lines.
        """
        counts = (self.target_calls, self.draft_calls, self.target_tokens, self.draft_tokens)
        calls, draft_calls, read, draft_read = (count / max(self.images, 1) for count in counts)
        parts = [
            f"images: {self.images}",
            f"calls per image: target {calls:.2f}, draft {draft_calls:.2f}",
            f"tokens read per image: target {read:.1f}, draft {draft_read:.1f}",
            ", ".join(f"{part} {self.seconds[part]:.3f} s" for part in PARTS if part in self.seconds),
        ]
        head = "; ".join(parts)
        legend = "; ".join(f"{mark} {meaning}" for mark, meaning in LEGEND.items())
        return "\n".join([head, legend, *(self._line(i) for i in range(min(images, self.images)))])

    def _line(self, image: int) -> str:
        mine = [entry for entry in self.rounds if image in entry.images]
        marks = " | ".join(entry.marks(entry.images.index(image)) for entry in mine)
        return f"image {image}: {marks}"
