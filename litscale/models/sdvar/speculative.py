"""Speculative decoding: the draft proposes scales, the target verifies them in one call.

Dimensions: B images, S scales, n tokens of a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litscale.models.sdvar.acceptance import Acceptance, Coupled, Proposal
from litscale.models.sdvar.decoders import Decoder, Task
from litscale.models.sdvar.gamma import FixedGamma, GammaPolicy
from litscale.models.sdvar.report import Round
from litscale.models.sdvar.state import DecodeState, DrawnScale, draw_scale
from litscale.models.var import VAR, VQVAE

COUPLED = Coupled()


class Speculative(Decoder):
    """The draft proposes gamma scales, and one call of the target scores them all and the scale after them.

    The target reads the draft's tokens teacher-forced, on top of its cache. The longest accepted run is kept, the first
    rejected scale is made by the target from the logits it has already, and when all are accepted the target makes the
    scale after them from the same call. So each call finishes at least one scale, an image takes at most S calls, and
    with a draft that is always right ``ceil(S / (gamma + 1))``. The last scale is never drafted, since it would be the
    target's own anyway. Caches of both networks roll back to the finished scales.

    **Batches.** With ``ragged``, each image continues after its own finished scales; those with equally many of them
    share a state. The state that is furthest behind goes next, so that states merge again and a batch takes at most S
    passes of the target. Without, all images keep as many scales of a round as the slowest: fewer and larger passes,
    more scales drafted and scored twice. Calls are counted for each image either way. With ``ragged`` and a number as
    gamma, an image is the same alone and in any batch. Otherwise the batch decides which scales are drafted together,
    and only ``Coupled`` draws the same image whatever it decides.

    **Exactness.** ``Coupled`` returns the tokens of :class:`TargetOnly` with the same seed. Scoring
    several scales in one call rounds differently from scoring them one by one (about 1e-6 of a logit in float32), and
    so does another grouping of a batch; a token can differ only where two candidates are closer than that, or a filter
    cuts that close to the winner. The report's ``margin`` is the smallest lead of a winner in the run. Under bfloat16
    the rounding is coarser by a factor of thousands: tokens are still drawn from the target's logits, but some will
    differ from a run with other passes. ``Rejection`` gives the target's distribution, not its tokens
    (:class:`litscale.models.sdvar.acceptance.Rejection`).

    Args:
        draft: proposes.
        target: decides.
        vqvae: their tokenizer; may be left out.
        gamma: number of scales to propose, or a policy: ``AdaptiveGamma`` follows the running acceptance rate,
            ``CostGamma`` chooses the fastest by measured times.
        acceptance: the rule: ``Coupled`` and ``Rejection`` are lossless, ``TopK`` and ``KL`` are not.
        ragged: let the images of a batch accept different numbers of scales.

    Attributes:
        on_round: called after each round with the states of all images; for tests and displays.

    Raises:
        TypeError: a model is no VAR, or the rule is no Acceptance.
        ValueError: the models do not fit together, or gamma is no whole number from 1 on.
    """

    def __init__(
        self,
        draft: VAR,
        target: VAR,
        vqvae: VQVAE | None = None,
        gamma: int | GammaPolicy = 2,
        acceptance: Acceptance = COUPLED,
        ragged: bool = True,
    ) -> None:
        super().__init__((draft, target), vqvae)
        if not isinstance(acceptance, Acceptance):
            given = f"the class {acceptance.__name__}" if isinstance(acceptance, type) else type(acceptance).__name__
            raise TypeError(f"acceptance of Speculative must be an Acceptance, such as Coupled(), not {given}")
        self.draft, self.target, self.acceptance, self.ragged = draft, target, acceptance, ragged
        self.gamma = gamma if isinstance(gamma, GammaPolicy) else FixedGamma(gamma)
        self.on_round: Callable[[list[DecodeState]], None] | None = None

    def __str__(self) -> str:
        return f"speculative (gamma {self.gamma}, {self.acceptance}{'' if self.ragged else ', ragged False'})"

    @property
    def lossless(self) -> bool:
        """Whether the rule is lossless; gamma does not change the images' distribution."""
        return self.acceptance.lossless

    def reset(self) -> None:
        """Reset the gamma policy."""
        self.gamma.reset()

    def prepare(self, task: Task) -> None:
        if task.options.prune is not None:
            raise ValueError(
                "Speculative verifies all tokens of several scales at once: make prune null, or take TargetOnly or "
                "Refine"
            )
        self.gamma.prepare(self.draft, self.target, len(task.labels), task.options)

    def make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        with task.watch.part("draft"):
            draft = self.open(self.draft, task, "draft")
        with task.watch.part("target"):
            target = self.open(self.target, task, "target")
        rows = torch.arange(len(task.labels), device=task.labels.device)
        start = self.vqvae.quantizer.start(len(rows))
        states = {
            0: DecodeState(rows=rows, images=task.images, tokens=[], f_hats=[start], draft=draft, target=target)
        }  # by finished scales
        while (finished := min(states)) < self.scales:
            for state in self._round(task, states.pop(finished)):
                other = states.get(state.finished)
                states[state.finished] = state if other is None else other.merge(state)
            if self.on_round is not None:
                self.on_round(list(states.values()))
        done = states[self.scales]
        order = done.rows.argsort()
        return [tokens[order] for tokens in done.tokens], done.f_hats[-1][order]

    def _round(self, task: Task, state: DecodeState) -> list[DecodeState]:
        """Draft, verify and commit one round; return a state for each number of scales that are finished now."""
        first = state.finished
        read = (state.draft.cache.length, state.target.cache.length)
        # 1. draft: the small network proposes gamma scales
        drafts = self._draft(task, state, min(self.gamma.choose(first), self.scales - 1 - first))
        # 2. verify: one call of the large one scores them and the scale after them
        with task.watch.part("target"):
            raws = state.target.read(state.f_hats[first:])
        with task.watch.part("sampling"):
            accepted, finals, leads = self._verify(task, state, first, drafts, raws)
            kept = accepted + 1 if self.ragged else (accepted.min() + 1).expand_as(accepted)
            accepted_counts, kept_counts = accepted.tolist(), kept.tolist()
            for j, lead in enumerate(leads):
                task.margin = min([task.margin, *lead[kept > j].tolist()])
        self._learn(first, len(drafts), accepted_counts)
        task.rounds.append(
            Round(
                images=tuple(state.rows.tolist()),
                first=first,
                drafted=len(drafts),
                accepted=tuple(accepted_counts),
                kept=tuple(kept_counts),
                draft_tokens=state.draft.cache.length - read[0],
                target_tokens=state.target.cache.length - read[1],
            )
        )
        # 3. commit: each image keeps its accepted scales and one of the target's; caches roll back to that
        lengths = sorted(set(kept_counts))
        choices = [(kept == length).nonzero().flatten() for length in lengths]
        states = [state] if len(lengths) == 1 else state.split(choices)
        for part, length, rows in zip(states, lengths, choices, strict=True):
            self._commit(task, part, first + length - 1, finals[length - 1][rows])
        return states

    def _draft(self, task: Task, state: DecodeState, count: int) -> list[DrawnScale]:
        """Let the draft make the next scales, on top of the state's tokens and accumulations."""
        drafts = []
        for k in range(state.finished, state.finished + count):
            with task.watch.part("draft"):  # which first reads the scales that it has not made itself
                raw = state.draft.read(state.f_hats[state.draft.scale :])[-1]
            with task.watch.part("sampling"):
                drafts.append(draw_scale(self.draft, raw, k, task.options, seed=task.seed, images=state.images))
            state.tokens.append(drafts[-1].tokens)
            with task.watch.part("vae"):
                state.f_hats.append(self.vqvae.quantizer.accumulate(state.f_hats[k], drafts[-1].tokens, k))
        return drafts

    def _verify(
        self, task: Task, state: DecodeState, first: int, drafts: Sequence[DrawnScale], raws: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Compare the scales drafted from ``first`` on with the target's logits.

        Returns:
            How many of them each image accepts, int64 ``[B]``; for each scale, up to the one at which the last image
            stops, the tokens ``[B, n]`` in case it is the last one kept; and, if the rule returns the target's own
            tokens, the leads ``[B]`` of its draws at each of these scales.
        """
        alive = torch.ones_like(state.rows, dtype=torch.bool)
        accepted = torch.zeros_like(state.rows)
        finals, leads = [], []
        for j, raw in enumerate(raws):
            # what the target draws there, with the draft's noise
            draft = drafts[j] if j < len(drafts) else None
            noise = None if draft is None else draft.noise
            own = draw_scale(
                self.target, raw, first + j, task.options, seed=task.seed, images=state.images, noise=noise
            )
            if self.acceptance.returns_target_tokens:
                leads.append(own.lead())
            # beyond the drafted scales, that is the result
            if draft is None:
                finals.append(own.tokens)
                break
            # before, the rule decides; after an image's first rejected scale nothing of it counts
            result = self.acceptance.verify(Proposal(draft, own, task.seed, state.images, first + j))
            finals.append(result.tokens)
            alive &= result.accepted
            accepted += alive
            if not alive.any():
                break
        return accepted, finals, leads

    def _learn(self, first: int, drafted: int, accepted: Sequence[int]) -> None:
        """Tell the policy for how many images each drafted scale was verified, and for how many it was accepted."""
        verified, passed = ([sum(count + more > j for count in accepted) for j in range(drafted)] for more in (1, 0))
        self.gamma.update(first, verified, passed)

    def _commit(self, task: Task, state: DecodeState, last: int, tokens: Tensor) -> None:
        """Finish scale ``last`` with these tokens, and drop all that was drafted from that scale on."""
        state.rollback(last)
        state.tokens.append(tokens)
        with task.watch.part("vae"):
            state.f_hats.append(self.vqvae.quantizer.accumulate(state.f_hats[last], tokens, last))
        state.settle()
