"""Policies that choose how many scales the draft proposes in a round.

A policy learns from all images of a batch, and keeps what it has learned for the next decoding run. Under ``Coupled``
that changes no image. Under other lossless rules it changes no image's distribution, but which one is drawn depends on
the rest of the batch and on the runs before; under lossy rules the distribution does, too. :meth:`GammaPolicy.reset`
makes it forget the runs before.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from litscale.models.sdvar.costs import Costs
from litscale.models.sdvar.described import Described
from litscale.models.var import VAR, VARGeneration


class GammaPolicy(Described, ABC):
    """Chooses gamma, and may learn from each round. A new policy is a subclass, given as class_path."""

    @abstractmethod
    def choose(self, first: int) -> int:
        """Return gamma for a round that begins with scale ``first``; it may exceed the number of remaining scales."""

    def prepare(self, draft: VAR, target: VAR, batch: int, options: VARGeneration) -> None:
        """Prepare for a run of ``batch`` images with these options; the time that this takes is not measured."""
        return

    def update(self, first: int, verified: Sequence[int], accepted: Sequence[int]) -> None:
        """Learn from a round.

        Args:
            first: the first drafted scale.
            verified: for each drafted scale, the number of images of which it was verified.
            accepted: of these, the number of images that accepted it.
        """
        return

    def reset(self) -> None:
        """Forget what the policy has learned."""
        return


@dataclass
class FixedGamma(GammaPolicy):
    """Proposes the same number of scales in every round.

    Args:
        gamma: number of scales.

    Raises:
        ValueError: gamma is no whole number from 1 on.
    """

    gamma: int

    def __post_init__(self) -> None:
        _check_whole(gamma=self.gamma)
        if self.gamma < 1:
            raise ValueError(f"gamma must be at least 1, not {self.gamma}; TargetOnly drafts nothing")

    def __str__(self) -> str:
        return str(self.gamma)

    def choose(self, first: int) -> int:
        """Return the same number for every scale."""
        return self.gamma


@dataclass
class _Rate:
    """A running rate of accepted scales, in which older ones weigh less and the first guess counts as one scale."""

    guess: float
    memory: float

    def __post_init__(self) -> None:
        self.accepted, self.verified = self.guess, 1.0

    def update(self, verified: int, accepted: int) -> None:
        self.accepted = self.memory * self.accepted + accepted
        self.verified = self.memory * self.verified + verified

    @property
    def value(self) -> float:
        return self.accepted / self.verified


@dataclass
class AdaptiveGamma(GammaPolicy):
    """Proposes as many scales as are all accepted with a given probability, by the running acceptance rate.

    Args:
        low: least gamma.
        high: largest gamma.
        confidence: probability that a whole round is accepted, above 0 and below 1.
        start: acceptance rate assumed at first, 0..1.
        memory: weight of the rounds before, at each new round, 0..1; 1 forgets nothing.

    Raises:
        ValueError: an option out of range.
    """

    low: int = 1
    high: int = 8
    confidence: float = 0.5
    start: float = 0.7
    memory: float = 0.9

    def __post_init__(self) -> None:
        _check_whole(low=self.low, high=self.high)
        if not 1 <= self.low <= self.high:
            raise ValueError(f"gamma needs bounds 1 <= low <= high, not {self.low} and {self.high}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be above 0 and below 1, not {self.confidence}")
        _check_shares(self.start, self.memory)
        self.reset()

    def choose(self, first: int) -> int:
        """Return the largest gamma in the bounds at which a whole round is accepted with probability ``confidence``."""
        rate = self.rate.value
        if not 0 < rate < 1:
            return self.high if rate else self.low
        return min(max(int(math.log(self.confidence) / math.log(rate)), self.low), self.high)

    def update(self, first: int, verified: Sequence[int], accepted: Sequence[int]) -> None:
        """Update the acceptance rate of all scales together."""
        if any(verified):
            self.rate.update(sum(verified), sum(accepted))

    def reset(self) -> None:
        """Reset the acceptance rate to the first guess."""
        self.rate = _Rate(self.start, self.memory)


@dataclass
class CostGamma(GammaPolicy):
    """Proposes as many scales as give the least expected time, by measured costs and each scale's acceptance rate.

    If drafting does not pay, gamma is 0 and the target continues alone.

    Args:
        costs: costs of the calls; measured before the first run if none are given, for the batch and options of that
            run.
        low: least gamma; a positive one keeps on trying scales that were not accepted before.
        high: largest gamma; none for no bound.
        start: acceptance rate assumed at first, 0..1.
        memory: weight of the rounds before, at each new round of the same scale, 0..1.

    Raises:
        ValueError: an option out of range.
    """

    costs: Costs | None = field(default=None, repr=False)
    low: int = 0
    high: int | None = None
    start: float = 0.7
    memory: float = 0.9

    def __post_init__(self) -> None:
        _check_whole(low=self.low, high=self.high)
        if self.low < 0 or (self.high is not None and self.high < max(self.low, 1)):
            raise ValueError(f"gamma needs bounds 0 <= low <= high and high >= 1, not {self.low} and {self.high}")
        _check_shares(self.start, self.memory)
        self.reset()

    def prepare(self, draft: VAR, target: VAR, batch: int, options: VARGeneration) -> None:
        """Measure the costs if they are not known.

        Raises:
            ValueError: the known costs are those of another number of scales.
        """
        if self.costs is None:
            self.costs = Costs.measure(draft, target, batch, options)
        if len(self.costs.target) != target.scales:
            raise ValueError(f"the costs are of {len(self.costs.target)} scales, but the target has {target.scales}")

    def choose(self, first: int) -> int:
        """Return the gamma that :meth:`Costs.plan` finds for scale ``first``, with the acceptance rate of each scale.

        Raises:
            RuntimeError: the costs are not known, as :meth:`prepare` was not called.
        """
        if self.costs is None:
            raise RuntimeError("call prepare first")
        rates = [self._rate(k).value for k in range(len(self.costs.target))]
        return self.costs.plan(rates, self.low, self.high)[0][first]

    def update(self, first: int, verified: Sequence[int], accepted: Sequence[int]) -> None:
        """Update the acceptance rate of each scale."""
        for k, (count, taken) in enumerate(zip(verified, accepted, strict=True), start=first):
            if count:
                self._rate(k).update(count, taken)

    def reset(self) -> None:
        """Reset the acceptance rates to the first guess, and keep the costs."""
        self.rates: dict[int, _Rate] = {}

    def _rate(self, k: int) -> _Rate:
        return self.rates.setdefault(k, _Rate(self.start, self.memory))


def _check_whole(**options: int | None) -> None:
    """Check that numbers of scales are whole numbers or None; a ValueError names the first that is not."""
    for name, value in options.items():
        if value is not None and not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number of scales, not {value!r}")


def _check_shares(start: float, memory: float) -> None:
    for name, value in (("start", start), ("memory", memory)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in 0..1, not {value}")
