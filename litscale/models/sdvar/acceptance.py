"""Rules of acceptance: which of the draft's scales are kept.

Dimensions: B images, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from litscale.models.sdvar.described import Described
from litscale.models.sdvar.state import DrawnScale
from litscale.models.var.generate import gumbel_max
from litscale.models.var.noise import gumbel_noise

_STREAM = 0xD1342543DE82EF95  # seeds this far apart share no key with any image's number


@dataclass(frozen=True)
class Proposal:
    """A drafted scale before its verification.

    Attributes:
        draft: the scale as the draft drew it.
        target: the scale as the target would draw it, given the draft's scales before it.
        seed: seed of the noise.
        images: number of each image, int64 ``[B]``.
        scale: index of the scale.
    """

    draft: DrawnScale
    target: DrawnScale
    seed: int
    images: Tensor
    scale: int

    def gumbel(self, stream: int, positions: int, vocab: int) -> Tensor:
        """Return Gumbel noise ``[B, positions, vocab]``, independent of both networks' noise and of other streams."""
        places = torch.arange(positions, device=self.images.device)
        return gumbel_noise(self.seed + stream * _STREAM, self.images, self.scale, places, vocab)

    def log_uniform(self, stream: int, positions: int) -> Tensor:
        """Return the logarithms of random numbers that are uniform in 0..1, ``[B, positions]``."""
        return -(-self.gumbel(stream, positions, 1)[..., 0]).exp()


class VerifyResult(NamedTuple):
    """The outcome of a drafted scale's verification.

    Attributes:
        accepted: whether the scale stays as drafted, so that the next drafted one is verified, too, bool ``[B]``.
        tokens: the final tokens of the scale if all scales before it are accepted, int64 ``[B, n]``; where it is
            accepted itself, they are the draft's.
    """

    accepted: Tensor
    tokens: Tensor


class Acceptance(Described, ABC):
    """A rule of acceptance: which drafted scales stay. A new rule is a subclass, given as class_path.

    Attributes:
        returns_target_tokens: whether the tokens are the very ones that the target draws, so that a report may say by
            how much it prefers them (:attr:`litscale.models.sdvar.DecodeReport.margin`).
    """

    returns_target_tokens: ClassVar[bool] = False

    @property
    @abstractmethod
    def lossless(self) -> bool:
        """Whether the images have the target's own distribution."""

    @abstractmethod
    def verify(self, proposal: Proposal) -> VerifyResult:
        """Accept or reject one drafted scale for each image of a batch."""


@dataclass(frozen=True)
class Agreement(Acceptance):
    """A family of rules: a scale is accepted if its tokens agree with the target well enough, and redrawn if not.

    Args:
        threshold: least mean agreement of its tokens, 0..1; at 0 every scale is accepted.
        partial: of a rejected scale, keep the tokens that agree and draw only the others from the target.

    Raises:
        ValueError: threshold outside 0..1.
    """

    threshold: float = 0.5
    partial: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, not {self.threshold}")

    @property
    def lossless(self) -> bool:
        """Whether the images have the target's own distribution: false, as these rules change it."""
        return False

    @abstractmethod
    def agreement(self, proposal: Proposal) -> Tensor:
        """Return the agreement of each token with the target, 0..1, ``[B, n]``."""

    def verify(self, proposal: Proposal) -> VerifyResult:
        """Accept the scale of an image if the mean agreement of its tokens is at least the threshold."""
        agreement = self.agreement(proposal).double()  # a mean of ones is then exactly one
        accepted = agreement.sum(1) / agreement.shape[1] >= self.threshold
        keep = accepted[:, None]
        if self.partial:
            keep = keep | (agreement >= self.threshold)
        return VerifyResult(accepted, torch.where(keep, proposal.draft.tokens, proposal.target.tokens))


@dataclass(frozen=True)
class TopK(Agreement):
    """Lossy: a token agrees if it is among the target's ``k`` likeliest.

    Args:
        threshold: least share of agreeing tokens.
        partial: as in :class:`Agreement`.
        k: 1 for the likeliest only.

    Raises:
        ValueError: threshold outside 0..1, or k below 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")

    def agreement(self, proposal: Proposal) -> Tensor:
        """Return whether each drafted token is among the target's ``k`` likeliest, bool ``[B, n]``."""
        logits = proposal.target.logits
        chosen = logits.gather(-1, proposal.draft.tokens[..., None])
        return ((logits > chosen).sum(-1) < self.k) & chosen.isfinite()[..., 0]


@dataclass(frozen=True)
class KL(Agreement):
    """Lossy: the agreement of a token is ``exp(-KL(target || draft))``, so 0.5 allows about 0.69 nats.

    The divergence is between the distributions after guidance and temperature but before the filters, which remove
    different tokens from both and would make it infinite.
    """

    def agreement(self, proposal: Proposal) -> Tensor:
        """Return ``exp(-KL(target || draft))`` of each token's distributions, 0..1, ``[B, n]``."""
        target, draft = (drawn.full.log_softmax(-1) for drawn in (proposal.target, proposal.draft))
        return (-(target.exp() * (target - draft)).sum(-1)).exp().clamp(max=1)


@dataclass(frozen=True)
class Coupled(Agreement):
    """Lossless to the token: a token agrees if it is the one that the target draws with the same Gumbel noise.

    The noise is keyed by seed, image, scale and position, so the target's draw of a scale depends on the scales before
    it only. A scale is accepted if all tokens agree, and the first that differs is the target's draw: the result is
    that of the target alone, whatever the draft does. Two networks of like distributions mostly draw the same tokens
    from the same noise, which is what makes it fast.

    Args:
        threshold: least share of agreeing tokens; below 1 the rule is lossy.
        partial: without effect, since a token that agrees is the target's.
    """

    threshold: float = 1.0
    returns_target_tokens = True

    @property
    def lossless(self) -> bool:
        """Whether the images have the target's own distribution: true if every token must agree."""
        return self.threshold == 1

    def agreement(self, proposal: Proposal) -> Tensor:
        """Return whether each drafted token is the one that the target draws, bool ``[B, n]``."""
        return proposal.draft.tokens == proposal.target.tokens


@dataclass(frozen=True)
class Rejection(Acceptance):
    """Lossless in distribution: speculative sampling (arXiv 2211.17192, 2302.01318) for scales.

    Let q be the draft's distribution of a token and p the target's, both after guidance, temperature and filters. A
    token x drawn from q is kept with probability ``min(1, p(x) / q(x))``, and otherwise redrawn from ``max(p - q, 0)``,
    normalised. Either way the token is distributed as p. Given the scales before, the tokens of a scale are independent
    under both networks, so this is done for each token by itself, and the whole scale is distributed as the target's.
    (Language models must drop what follows the first rejected token, here the rest of the scale can stay.) Later
    drafted scales were conditioned on the draft's tokens; they are looked at only if every token was kept. Whether they
    are depends on finished scales alone, so nothing is selected: scale after scale has the target's distribution.

    The uniform and the residual noise are keyed as the Gumbel noise is, under other seeds.
    """

    @property
    def lossless(self) -> bool:
        """Whether the images have the target's own distribution: always true."""
        return True

    def verify(self, proposal: Proposal) -> VerifyResult:
        """Keep or redraw each token; the scale is accepted where all of its tokens are kept."""
        # 1. keep a token with probability min(1, p / q)
        draft, target = proposal.draft, proposal.target
        chosen = draft.tokens[..., None]
        log_p, log_q = (drawn.logits.log_softmax(-1) for drawn in (target, draft))
        log_ratio = (log_p.gather(-1, chosen) - log_q.gather(-1, chosen))[..., 0]
        positions, vocab = log_p.shape[1:]
        kept = proposal.log_uniform(1, positions) < log_ratio
        # 2. draw the others from what p has more than q
        p = log_p.exp()
        residual = (p - log_q.exp()).clamp(min=0)
        # p = q leaves nothing; only rounding can then have rejected the token
        residual = torch.where(residual.sum(-1, keepdim=True) > 0, residual, p)
        redrawn = gumbel_max(residual.log(), proposal.gumbel(2, positions, vocab))
        return VerifyResult(kept.all(1), torch.where(kept, draft.tokens, redrawn))


@dataclass(frozen=True)
class Forced(Acceptance):
    """For benchmarks: accepts each scale with a given probability, keyed by seed, image and scale, whatever it holds.

    Args:
        rate: probability, 0..1.

    Raises:
        ValueError: rate outside 0..1.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must be in 0..1, not {self.rate}")

    @property
    def lossless(self) -> bool:
        """Whether the images have the target's own distribution: true only if nothing is accepted."""
        return self.rate == 0

    def verify(self, proposal: Proposal) -> VerifyResult:
        """Accept the scale of each image at random, with the probability ``rate``."""
        limit = math.log(self.rate) if self.rate else -math.inf
        accepted = proposal.log_uniform(3, 1)[:, 0] < limit
        return VerifyResult(accepted, torch.where(accepted[:, None], proposal.draft.tokens, proposal.target.tokens))
