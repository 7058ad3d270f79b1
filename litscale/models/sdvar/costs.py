"""A cost model of decoding: the time of calls, and the plans that finish soonest.

Dimensions: S scales.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch

from litscale.models.modes import evaluating
from litscale.models.sdvar.clock import Stopwatch
from litscale.models.var import VAR, NetworkState, Pass, VARGeneration
from litscale.models.var.generation_options import PLAIN


@dataclass(frozen=True)
class Costs:
    """The times of calls, in seconds.

    A call over several scales takes the overhead (launches, reading the weights) once, and above it each scale's own
    time, which is proportional to the number of images.

    Args:
        draft: time of a call of the draft for each scale alone, S numbers.
        target: time of a call of the target for each scale alone, S numbers.
        overhead: the part of each number of ``target`` that a call over several scales takes once.
        draft_overhead: the same of ``draft``.
        batch: number of images of a call.

    Raises:
        ValueError: different numbers of scales.
    """

    draft: tuple[float, ...]
    target: tuple[float, ...]
    overhead: float = 0.0
    draft_overhead: float = 0.0
    batch: int = 1

    def __post_init__(self) -> None:
        if len(self.draft) != len(self.target):
            raise ValueError(f"costs of {len(self.draft)} scales of the draft, but of {len(self.target)} of the target")

    @classmethod
    @torch.no_grad()
    def measure(cls, draft: VAR, target: VAR, batch: int = 1, options: VARGeneration = PLAIN, repeats: int = 3) -> Self:
        """Time both networks, without class: every scale alone, and all scales in one call.

        Args:
            draft: proposes.
            target: verifies.
            batch: number of images.
            options: how tokens are drawn, which says what is computed.
            repeats: number of timed runs, of which medians are kept. One more run comes first to warm up.
        """
        # 1. time each call: of either network, the scales one by one and all at once
        watch = Stopwatch(target.pos_emb.device, profile=True)
        labels = torch.full((batch,), -1, device=watch.device)
        f_hats = [target.vqvae.quantizer.start(batch)] * target.scales
        runs = []
        with evaluating(draft), evaluating(target):
            for _ in range(repeats + 1):
                seconds = []
                for model, calls in ((draft, target.scales), (draft, 1), (target, target.scales), (target, 1)):
                    stream = NetworkState.open(model, labels, options)
                    for _ in range(calls):
                        begun = watch.now()
                        stream.read(f_hats[: target.scales // calls])
                        seconds.append(watch.now() - begun)
                runs.append(seconds)
        # 2. medians, without the first run; what calls cost beyond one common call is their overhead
        medians = [statistics.median(times) for times in zip(*runs[1:], strict=True)]
        times, overheads = [], []
        for *alone, together in (medians[: target.scales + 1], medians[target.scales + 1 :]):
            spare = (sum(alone) - together) / max(target.scales - 1, 1)
            times.append(tuple(alone))
            overheads.append(min(max(spare, 0.0), *alone) if target.scales > 1 else 0.0)
        return cls(times[0], times[1], overheads[1], overheads[0], batch)

    def call(self, first: int, last: int) -> float:
        """Return the seconds of one call of the target over the scales ``first`` to ``last``."""
        return self.overhead + sum(self.target[first : last + 1]) - self.overhead * (last + 1 - first)

    def seconds(self, passes: Iterable[Pass]) -> float:
        """Return the seconds that the passes of any decoder take, such as those of its report."""
        total = 0.0
        for each in passes:
            target = each.role == "target"
            times, overhead = (self.target, self.overhead) if target else (self.draft, self.draft_overhead)
            own = sum(times[each.first : each.first + each.scales]) - overhead * each.scales
            total += overhead + own * each.images / self.batch
        return total

    def plan(self, acceptance: Sequence[float], low: int = 0, high: int | None = None) -> tuple[list[int], float]:
        """Find the gamma with the least expected time, for each scale that a round may begin with.

        Dynamic programming goes from the last scale backwards. The expected time is that of drafting, of the target's
        call, and of the scales that remain after each number of accepted ones, weighed by its probability. The model
        takes acceptances as independent, and neglects that the draft has to read the target's own scale after a fully
        accepted round.

        Args:
            acceptance: probability that each scale is accepted, S numbers.
            low: least gamma, as long as scales remain to be drafted; 0 lets the target continue alone.
            high: largest gamma; None for as many scales as there are.

        Returns:
            The gammas, and the expected seconds of the whole image.
        """
        scales = len(self.target)
        left = [0.0] * (scales + 1)
        gammas = [0] * scales
        for first in reversed(range(scales)):
            # 1. the gammas that are possible here; the last scale of a call is the target's own
            most = scales - 1 - first
            options = range(min(low, most), min(most if high is None else high, most) + 1)
            # 2. the one that finishes soonest
            expected = {gamma: self._round(acceptance, left, first, gamma) for gamma in options}
            gammas[first] = min(expected, key=lambda gamma: expected[gamma])
            left[first] = expected[gammas[first]]
        return gammas, left[0]

    def entry_num(self, low: int = 1, high: int | None = None) -> int:
        """Find the fastest ``entry_num`` of :class:`litscale.models.sdvar.CollaborativeDecoding`.

        Speed alone mostly favours a cheap draft for all scales; the bounds stand for what quality needs.

        Args:
            low: least entry_num.
            high: largest entry_num; S - 1 if none is given.

        Raises:
            ValueError: the bounds are not 0 <= low <= high <= S.
        """
        scales = len(self.target)
        high = scales - 1 if high is None else high
        if not 0 <= low <= high <= scales:
            raise ValueError(f"entry_num needs bounds 0 <= low <= high <= {scales}, not {low} and {high}")
        drafted = [0.0, *accumulate(self.draft)]

        def seconds(entry: int) -> float:
            return drafted[entry] + (self.call(0, entry) + sum(self.target[entry + 1 :]) if entry < scales else 0.0)

        return min(range(low, high + 1), key=seconds)

    def _round(self, acceptance: Sequence[float], left: Sequence[float], first: int, gamma: int) -> float:
        """Return the expected seconds from scale ``first`` on, if ``gamma`` scales are drafted now."""
        seconds = sum(self.draft[first : first + gamma]) + self.call(first, first + gamma)
        reached = 1.0
        for k in range(first, first + gamma):
            seconds += reached * (1 - acceptance[k]) * left[k + 1]
            reached *= acceptance[k]
        return seconds + reached * left[first + gamma + 1]
