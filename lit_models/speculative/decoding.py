"""The decoder of a draft and a target as options of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litscale.models.sdvar import PRESETS, Decoder, DraftOnly, Handoff, Speculative, TargetOnly
from litscale.models.sdvar.acceptance import acceptance_rule
from litscale.models.sdvar.gamma import gamma_policy
from litscale.models.sdvar.masks import check_mask
from litscale.models.var import VAR, Sampling

_OPTIONS: dict[str, tuple[str, ...]] = {
    "target_only": (),
    "draft_only": (),
    "handoff": ("entry_num", "mask"),
    "speculative": ("gamma", "acceptance", "threshold", "k", "partial", "ragged"),
}


@dataclass(frozen=True)
class Decoding:
    """A decoder, and how it draws tokens.

    An option that is null is the preset's or the decoder's own (`Handoff`, `Speculative`);
    one that the decoder does not have must be null.

    Args:
        name: target_only, draft_only, handoff or speculative; or a preset: quality, balanced and speed (hand-overs, for
            models of ten scales), lossless or adaptive (speculative).
        gamma: scales that the draft proposes in a round, a number, adaptive or cost (speculative).
        acceptance: coupled, rejection, top1, topk or kl; the first two are lossless (speculative).
        threshold: least agreement of an accepted scale with the target, 0..1 (speculative).
        k: a token agrees if it is among the target's k likeliest (topk).
        partial: of a rejected scale, keep the tokens that agree (speculative).
        ragged: let the images of a batch accept different numbers of scales (speculative).
        entry_num: number of scales that the draft makes (handoff).
        mask: what the target sees of them (handoff).
        cfg: guidance at the last scale, 0 for none; it grows from 0 at the first one.
        top_k: draw among the k likeliest tokens, 0 for all.
        top_p: draw among the likeliest tokens that hold this share of the probability, 0 for all.
        temperature: divides the logits; below 1 is safer.

    Raises:
        ValueError: unknown name, an option that the decoder does not have, or one out of range.
    """

    name: str = "speculative"
    gamma: int | str | None = None
    acceptance: str | None = None
    threshold: float | None = None
    k: int | None = None
    partial: bool | None = None
    ragged: bool | None = None
    entry_num: int | None = None
    mask: str | None = None
    cfg: float = 1.5
    top_k: int = 0
    top_p: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in (*_OPTIONS, *PRESETS):
            raise ValueError(f"unknown decoder {self.name!r}; known are {', '.join((*_OPTIONS, *PRESETS))}")
        own = _OPTIONS[self.kind]
        every = {name for names in _OPTIONS.values() for name in names}
        if foreign := [name for name in sorted(every.difference(own)) if getattr(self, name) is not None]:
            raise ValueError(f"decoder {self.name} has no {' and no '.join(foreign)}: set it to null")
        Sampling(**self.drawing)
        given = self.arguments
        if self.kind == "speculative":
            gamma_policy(given.get("gamma", "adaptive"))
            rule = {name: given[name] for name in ("threshold", "k", "partial") if name in given}
            acceptance_rule(given.get("acceptance", "coupled"), **rule)
        elif self.kind == "handoff":
            check_mask(given.get("mask", "causal"))
            if given.get("entry_num", 0) < 0:
                raise ValueError(f"entry_num must not be negative, not {self.entry_num}")

    @property
    def kind(self) -> str:
        """Which decoder it is, without presets: target_only, draft_only, handoff or speculative."""
        return str(PRESETS[self.name]["decoder"]).lower() if self.name in PRESETS else self.name

    @property
    def drawing(self) -> dict[str, Any]:
        """What `litscale.models.sdvar.Decoder.decode` takes: ``cfg``, ``top_k``, ``top_p`` and ``temperature``."""
        return {name: getattr(self, name) for name in ("cfg", "top_k", "top_p", "temperature")}

    @property
    def arguments(self) -> dict[str, Any]:
        """The decoder's arguments beside the networks, those left to its defaults not included."""
        own = {name: getattr(self, name) for name in _OPTIONS[self.kind]}
        preset = {name: value for name, value in PRESETS.get(self.name, {}).items() if name != "decoder"}
        return preset | {name: value for name, value in own.items() if value is not None}

    @property
    def label(self) -> str:
        """The decoder in words, for tables."""
        rules = ("acceptance", "mask")  # whose values speak for themselves
        shown = ", ".join(str(value) if name in rules else f"{name} {value}" for name, value in self.arguments.items())
        return self.kind.replace("_", " ") + (f" ({shown})" if shown else "")

    def build(self, draft: VAR, target: VAR) -> Decoder:
        """The decoder for two networks.

        Raises:
            ValueError: the networks do not fit together, or an option is unknown or out of range.
        """
        if self.kind == "target_only":
            return TargetOnly(target)
        if self.kind == "draft_only":
            return DraftOnly(draft)
        made = Handoff if self.kind == "handoff" else Speculative
        return made(draft, target, **self.arguments)
