"""Options of generation with VAR: guidance, temperature, filters, keyed noise.

Dimensions: B images, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from litscale.models.numbers import one_or_more, real, whole
from litscale.models.var.noise import gumbel_noise
from litscale.models.var.pruning import Pruning


@dataclass(frozen=True)
class ScaleGeneration:
    """How the tokens of one scale are drawn, see :class:`VARGeneration`.

    Attributes:
        cfg: guidance of the last scale; 0 if this scale is not guided.
        top_k: number of tokens, 0 for all.
        top_p: share of the probability, 0 for all.
        temperature: divides the logits.
    """

    cfg: float
    top_k: int
    top_p: float
    temperature: float

    def logits(self, raw: Tensor, progress: float) -> Tensor:
        """Compute the logits that tokens are drawn from.

        Args:
            raw: logits of the network, ``[B, n, V]``, or ``[2 B, n, V]`` with the unconditional rows second if ``cfg``
                is above 0.
            progress: :meth:`litscale.models.var.VAR.progress` of the scale.

        Returns:
            ``[B, n, V]``; removed tokens are -inf.
        """
        logits = guided(raw, self.cfg * progress) if self.cfg else raw
        return keep_likely(logits / self.temperature, self.top_k, self.top_p)


BY_SCALE: Mapping[str, Callable[[str, Any], float]] = {"top_k": whole, "top_p": real, "temperature": real}


def values_of(given: float | tuple[float, ...]) -> tuple[float, ...]:
    """Return an option's values for the first scales; the last value also holds for all further scales."""
    return given if isinstance(given, tuple) else (given,)


@dataclass(frozen=True)
class VARGeneration:
    """How tokens are drawn. The published scores are those of cfg 1.5, top_k 900 and top_p 0.96.

    top_k, top_p and temperature are one value, or one for each scale from the first on; the last one holds for all
    further scales. ``top_k=(0, 0, 0, 1)`` takes the likeliest tokens from scale 3 on. Lists and arrays are as good as
    tuples.

    Args:
        cfg: classifier-free guidance at the last scale; it grows from 0 at the first one, and logits are
            ``(1 + t) * conditional - t * unconditional``. 0 is off, at half the cost; the published value is 1.5.
        top_k: draw among the k likeliest tokens, one k for all scales or one per scale; 0 is off, the published value
            is 900.
        top_p: draw among the likeliest tokens that hold this share of the probability, one for all scales or one per
            scale; 0 is off, the published value is 0.96.
        temperature: divides the logits, one for all scales or one per scale; below 1 is safer.
        greedy: take the likeliest tokens.
        smooth: make the picture from mixtures of codes instead of the tokens drawn (Gumbel softmax): smoother, for
            viewing, not for measuring.
        cfg_until: the first scale that is drawn without guidance, by conditional logits. From there on no unconditional
            rows are computed, which halves the work of the scales that hold most tokens. Null guides all scales, and so
            does the number of scales.
        prune: late scales of which only some tokens are computed; null computes all.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    cfg: float = 1.5
    top_k: int | tuple[int, ...] = 0
    top_p: float | tuple[float, ...] = 0.0
    temperature: float | tuple[float, ...] = 1.0
    greedy: bool = False
    smooth: bool = False
    cfg_until: int | None = None
    prune: Pruning | None = None

    def __post_init__(self) -> None:
        # 1. Python's own types, so that options can be hashed and written as JSON
        object.__setattr__(self, "cfg", real("cfg", self.cfg))
        if self.cfg_until is not None:
            object.__setattr__(self, "cfg_until", whole("cfg_until", self.cfg_until))
        for name, number in BY_SCALE.items():
            object.__setattr__(self, name, one_or_more(name, getattr(self, name), number))
        # 2. ranges
        if not 0 <= self.cfg < math.inf:
            raise ValueError(f"cfg must not be negative, not {self.cfg}; 0 means no guidance")
        if self.cfg_until is not None and self.cfg_until < 0:
            raise ValueError(f"cfg_until must not be negative, not {self.cfg_until}; null guides all scales")
        for name in BY_SCALE:
            if not values_of(getattr(self, name)):
                raise ValueError(f"{name} must be one value, or one for each scale, not an empty list")
        for top_k in values_of(self.top_k):
            if top_k < 0:
                raise ValueError(f"top_k must not be negative, not {top_k}; 0 draws among all tokens")
        for top_p in values_of(self.top_p):
            if not 0 <= top_p <= 1:
                raise ValueError(f"top_p must be in 0..1, not {top_p}; 0 draws among all tokens")
        for temperature in values_of(self.temperature):
            if not 0 < temperature < math.inf:
                raise ValueError(f"temperature must be positive, not {temperature}; greedy takes the likeliest token")

    def check(self, scales: int) -> None:
        """Check that no option has more values than there are scales, or names a scale beyond them.

        Raises:
            ValueError: an option has too many values or names such a scale; the message names it.
        """
        for name in BY_SCALE:
            if len(values := values_of(getattr(self, name))) > scales:
                raise ValueError(f"{name} has {len(values)} values, one for each scale, but there are {scales} scales")
        # as an end, the number of scales is a scale, too
        if self.cfg_until is not None and self.cfg_until > scales:
            raise ValueError(
                f"cfg_until is {self.cfg_until}, but must be in 0..{scales}, the number of scales, or null"
            )
        if self.prune is not None and (last := self.prune.from_scale + len(self.prune.ratios) - 1) >= scales:
            raise ValueError(
                f"prune has ratios up to scale {last}, but the last scale is {scales - 1}: make from_scale smaller, or "
                "ratios shorter"
            )

    def at(self, k: int) -> ScaleGeneration:
        """Return the options of scale ``k``."""
        here: dict[str, Any] = {}
        for name in BY_SCALE:
            values = values_of(getattr(self, name))
            here[name] = values[min(k, len(values) - 1)]
        return ScaleGeneration(self.cfg if self.cfg_until is None or k < self.cfg_until else 0.0, **here)

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Return the number of computed tokens of each scale, given the number of all its tokens."""
        return list(sizes) if self.prune is None else self.prune.counts(sizes)

    def complete(self) -> VARGeneration:
        """Return the options without those that save arithmetic at the expense of quality."""
        return replace(self, cfg_until=None, prune=None)

    def noise(self, seed: int, images: Tensor, k: int, n: int, vocab: int) -> Tensor | None:
        """Return the noise of scale ``k`` for images int64 ``[B]``, float32 ``[B, n, V]``; None if ``greedy``."""
        if self.greedy:
            return None
        return gumbel_noise(seed, images, k, torch.arange(n, device=images.device), vocab)


PLAIN = VARGeneration()


def guided(logits: Tensor, strength: float) -> Tensor:
    """Apply classifier-free guidance (arXiv 2207.12598).

    Args:
        logits: ``[2 B, n, V]``, conditional rows first.
        strength: t in ``(1 + t) * conditional - t * unconditional``.

    Returns:
        ``[B, n, V]``.
    """
    conditional, unconditional = logits.chunk(2)
    return (1 + strength) * conditional - strength * unconditional


def keep_likely(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set unlikely tokens to -inf: first all below the k-th largest logit (ties stay), then the tail beyond ``top_p``.

    Args:
        logits: ``[..., V]``.
        top_k: number of tokens, 0 for all.
        top_p: share of what is left, 0 for all; the likeliest token always stays (nucleus sampling, arXiv 1904.09751).

    Returns:
        ``[..., V]``.
    """
    if 0 < top_k < logits.shape[-1]:
        lowest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, float("-inf"))
    if top_p:
        ascending, order = logits.sort(dim=-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[..., -1] = False
        logits = logits.masked_fill(torch.zeros_like(tail).scatter(-1, order, tail), float("-inf"))
    return logits
