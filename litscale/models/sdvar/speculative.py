"""Speculative decoding: the draft proposes scales, the target checks them in one call.

Suffixes: B images, S scales, n tokens of a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litscale.models.sdvar.acceptance import Acceptance, Coupled, Proposal, acceptance_rule
from litscale.models.sdvar.decoders import Decoder, Task
from litscale.models.sdvar.gamma import GammaPolicy, gamma_policy
from litscale.models.sdvar.report import Round
from litscale.models.sdvar.state import Draw, Group, draw_scale
from litscale.models.var import VAR, VQVAE


class Speculative(Decoder):
    """The draft proposes gamma scales, and one call of the target scores them all and the scale after them.

    The target reads the draft's tokens teacher-forced, on top of its cache. The longest accepted run is kept, the first
    rejected scale is made by the target from the logits it has already, and when all are accepted the target makes the
    scale after them from the same call. So each call finishes at least one scale, an image takes at most S calls, and
    with a draft that is always right ``ceil(S / (gamma + 1))``. The last scale is never drafted, since it would be the
    target's own anyway. Caches of both networks roll back to the finished scales.

    **Batches.** With ``ragged``, images go on from where each of them got to: those that have come equally far form a
    group, and the group that is furthest behind goes next, so that groups meet again and a batch takes at most S passes
    of the target. Without, all images keep as many scales of a round as the slowest: fewer and larger passes, more
    scales drafted and scored twice. Calls are counted for each image either way.

    **Exactness.** ``coupled`` returns the tokens of :class:`TargetOnly` with the same seed. Scoring
    several scales in one call rounds differently from scoring them one by one (about 1e-6 of a logit in float32), and
    so does another grouping of a batch; a token can differ only where two candidates are closer than that, or a filter
    cuts that close to the winner. The report's ``margin`` is the smallest lead of a winner in the run. Under bfloat16
    the rounding is coarser by a factor of thousands: tokens are still drawn from the target's logits, but some will
    differ from a run with other passes. ``rejection`` gives the target's distribution, not its tokens
    (:class:`litscale.models.sdvar.acceptance.Rejection`).

    Args:
        draft: proposes.
        target: decides.
        vqvae: their tokenizer; it need not be given.
        gamma: number of scales to propose; ``adaptive`` follows the running acceptance rate, ``cost`` chooses the
            fastest by measured times; or a policy.
        acceptance: ``coupled`` and ``rejection`` are lossless; ``top1``, ``topk`` and ``kl`` are not; or a rule.
        threshold: least agreement of an accepted scale with the target, 0..1; 0.5 if none is given, 1 for ``coupled``.
        k: of ``topk``: a token agrees if it is among the target's k likeliest.
        partial: of a rejected scale, keep the tokens that agree and draw only the others from the target.
        ragged: let the images of a batch accept different numbers of scales.

    Attributes:
        on_round: called after each round with all groups of images; for tests and displays.

    Raises:
        ValueError: the models do not fit together, or an option is unknown or out of range.
    """

    def __init__(
        self,
        draft: VAR,
        target: VAR,
        vqvae: VQVAE | None = None,
        gamma: int | str | GammaPolicy = 2,
        acceptance: str | Acceptance = "coupled",
        threshold: float | None = None,
        k: int = 5,
        partial: bool = False,
        ragged: bool = True,
    ) -> None:
        super().__init__((draft, target), vqvae)
        if isinstance(acceptance, Acceptance):
            if threshold is not None or partial:
                raise ValueError("threshold and partial belong to acceptance rules by name; give them to your rule")
            self.acceptance = acceptance
        else:
            self.acceptance = acceptance_rule(acceptance, threshold, k, partial)
        self.draft, self.target, self.ragged = draft, target, ragged
        self.gamma = gamma_policy(gamma)
        self.on_round: Callable[[list[Group]], None] | None = None

    def _prepare(self, task: Task) -> None:
        self.gamma.prepare(self.draft, self.target, len(task.labels), task.options.cfg > 0)

    def _make(self, task: Task) -> tuple[list[Tensor], Tensor]:
        with task.watch.part("draft"):
            draft = self._open(self.draft, task)
        with task.watch.part("target"):
            target = self._open(self.target, task)
        rows = torch.arange(len(task.labels), device=task.labels.device)
        start = self.vqvae.quantizer.start(len(rows))
        groups = {0: Group(rows, task.images, [], [start], draft, target)}  # by finished scales
        while (finished := min(groups)) < self.scales:
            for part in self._round(task, groups.pop(finished)):
                met = groups.get(part.finished)
                groups[part.finished] = part if met is None else met.joined(part)
            if self.on_round is not None:
                self.on_round(list(groups.values()))
        done = groups[self.scales]
        order = done.rows.argsort()
        return [tokens[order] for tokens in done.tokens], done.f_hats[-1][order]

    def _round(self, task: Task, group: Group) -> list[Group]:
        """Draft, check, and part the images by how far they got."""
        first = group.finished
        read = (group.draft.cache.length, group.target.cache.length)
        drafts = self._propose(task, group, min(self.gamma.choose(first), self.scales - 1 - first))
        with task.watch.part("target"):
            raws = group.target.read(group.f_hats[first:])
        with task.watch.part("sampling"):
            accepted, finals, leads = self._judge(task, group, first, drafts, raws)
            kept = accepted + 1 if self.ragged else (accepted.min() + 1).expand_as(accepted)
            taken, lengths = accepted.tolist(), kept.tolist()
            for j, lead in enumerate(leads):
                task.margin = min([task.margin, *lead[kept > j].tolist()])
        judged, passed = ([sum(count + more > j for count in taken) for j in range(len(drafts))] for more in (1, 0))
        self.gamma.update(first, judged, passed)
        task.rounds.append(
            Round(
                images=tuple(group.rows.tolist()),
                first=first,
                drafted=len(drafts),
                accepted=tuple(taken),
                kept=tuple(lengths),
                draft_tokens=group.draft.cache.length - read[0],
                target_tokens=group.target.cache.length - read[1],
            )
        )
        reached = sorted(set(lengths))
        chosen = [(kept == length).nonzero().flatten() for length in reached]
        parts = [group] if len(reached) == 1 else group.split(chosen)
        for part, length, rows in zip(parts, reached, chosen, strict=True):
            self._commit(task, part, first + length - 1, finals[length - 1][rows])
        return parts

    def _propose(self, task: Task, group: Group, drafted: int) -> list[Draw]:
        """Let the draft make the next scales, on top of the group's tokens and accumulations."""
        drafts = []
        for k in range(group.finished, group.finished + drafted):
            with task.watch.part("draft"):  # which first reads the scales that it has not made itself
                raw = group.draft.read(group.f_hats[group.draft.scale :])[-1]
            with task.watch.part("sampling"):
                drafts.append(draw_scale(self.draft, raw, k, task.options, group.images))
            group.tokens.append(drafts[-1].tokens)
            with task.watch.part("vae"):
                group.f_hats.append(self.vqvae.quantizer.accumulate(group.f_hats[k], drafts[-1].tokens, k))
        return drafts

    def _judge(
        self, task: Task, group: Group, first: int, drafts: Sequence[Draw], raws: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Compare the scales drafted from ``first`` on with the target's logits.

        Returns:
            How many of them each image accepts, int64 ``[B]``; for each scale its tokens ``[B, n]`` in case it is the
            last one kept, up to where the last image stops; and the leads of the target's draws ``[B]``, where
            :class:`litscale.models.sdvar.acceptance.Coupled` makes them the result.
        """
        alive = torch.ones_like(group.rows, dtype=torch.bool)
        accepted = torch.zeros_like(group.rows)
        finals, leads = [], []
        for j, raw in enumerate(raws):
            draft = drafts[j] if j < len(drafts) else None
            noise = None if draft is None else draft.noise
            own = draw_scale(self.target, raw, first + j, task.options, group.images, noise)
            if isinstance(self.acceptance, Coupled):
                leads.append(own.lead())
            if draft is None:
                finals.append(own.tokens)
                break
            verdict = self.acceptance.judge(Proposal(draft, own, task.options.seed, group.images, first + j))
            finals.append(verdict.tokens)
            alive &= verdict.accepted
            accepted += alive
            if not alive.any():
                break
        return accepted, finals, leads

    def _commit(self, task: Task, group: Group, last: int, tokens: Tensor) -> None:
        """Finish scale ``last`` with these tokens, and forget all that the draft made from that scale on."""
        del group.tokens[last:], group.f_hats[last + 1 :]
        group.draft.forget(last + 1)
        group.target.forget(last + 1)
        group.tokens.append(tokens)
        with task.watch.part("vae"):
            group.f_hats.append(self.vqvae.quantizer.accumulate(group.f_hats[last], tokens, last))
