"""The state of decoding between rounds, for images of which equally many scales are finished.

Dimensions: B images, S scales, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from litscale.models.var import VAR, Condition, NetworkState, VARGeneration
from litscale.models.var.generate import gumbel_max
from litscale.models.var.generation_options import keep_likely


class DrawnScale(NamedTuple):
    """One scale drawn by one network.

    Attributes:
        full: logits after guidance and temperature, ``[B, n, V]``.
        logits: the same after the filters, what the tokens are drawn from; removed tokens are -inf.
        noise: Gumbel noise ``[B, n, V]``; both networks use the same.
        tokens: int64 ``[B, n]``.
    """

    full: Tensor
    logits: Tensor
    noise: Tensor
    tokens: Tensor

    def lead(self) -> Tensor:
        """Return the least margin of a drawn token over the runner-up (logits plus noise) in each image, ``[B]``."""
        perturbed = self.logits + self.noise
        if perturbed.shape[-1] == 1:
            return perturbed.new_full((len(perturbed),), float("inf"))
        first, second = perturbed.topk(2, dim=-1).values.unbind(-1)
        return (first - second).amin(-1)


def draw_scale(
    model: VAR,
    raw: Tensor,
    k: int,
    options: VARGeneration,
    *,
    seed: int,
    images: Tensor,
    noise: Tensor | None = None,
) -> DrawnScale:
    """Draw scale ``k`` just as :func:`litscale.models.var.generate` does.

    Args:
        model: the network whose logits they are.
        raw: ``[B, n, V]``, or ``[2 B, n, V]`` with the unconditional rows second where the scale is guided.
        k: scale.
        options: how tokens are drawn.
        seed: seed of the noise.
        images: number of each image, int64 ``[B]``.
        noise: noise of this scale, if it is already known.
    """
    # 1. guidance and temperature
    drawn = options.at(k)
    full = replace(drawn, top_k=0, top_p=0.0).logits(raw, model.progress(k))
    # 2. filters
    logits = keep_likely(full, drawn.top_k, drawn.top_p)
    # 3. keyed noise, and the tokens that it chooses
    if noise is None:
        noise = options.noise(seed, images, k, logits.shape[1], logits.shape[2])
        assert noise is not None  # it is none for greedy sampling only
    return DrawnScale(full, logits, noise, gumbel_max(logits, noise))


@dataclass(kw_only=True)
class DecodeState:
    """Images of which equally many scales are finished, and what both networks have read of them.

    Attributes:
        rows: their places in the batch, int64 ``[B]``.
        images: their numbers, which key their noise, int64 ``[B]``.
        tokens: int64 ``[B, n]`` of the finished scales.
        f_hats: accumulation before each finished scale and after the last, ``[B, dim, h, h]``.
        draft: what the draft has read; it may lag behind.
        target: what the target has read: exactly the finished scales.
    """

    rows: Tensor
    images: Tensor
    tokens: list[Tensor]
    f_hats: list[Tensor]
    draft: NetworkState
    target: NetworkState

    @property
    def finished(self) -> int:
        """Number of finished scales."""
        return len(self.tokens)

    def split(self, choices: Sequence[Tensor]) -> list[DecodeState]:
        """Split into a state for each choice of images, int64 indices; this state must not be used again."""
        return _assembled([self], choices)

    def merge(self, other: DecodeState) -> DecodeState:
        """Merge the images of two states with equally many finished scales; neither must be used again.

        The draft keeps the scales that it has read in both states.
        """
        everything = torch.arange(len(self.rows) + len(other.rows), device=self.rows.device)
        return _assembled([self, other], [everything])[0]

    def settle(self) -> None:
        """Free the memory that only finished scales need, see :meth:`NetworkState.settle`."""
        self.draft.settle(self.finished)
        self.target.settle(self.finished)

    def rollback(self, scale: int) -> None:
        """Return to the state before the tokens of ``scale`` were drawn.

        The networks keep what they have read for its logits, the accumulation of the scales before it.
        """
        del self.tokens[scale:], self.f_hats[scale + 1 :]
        self.draft.rollback(scale + 1)
        self.target.rollback(scale + 1)


def _assembled(states: Sequence[DecodeState], choices: Sequence[Tensor]) -> list[DecodeState]:
    """Assemble a new state for each choice among the images of all states; the old ones must not be used again."""
    drafts = _assembled_networks([state.draft for state in states], choices)
    targets = _assembled_networks([state.target for state in states], choices)
    return [
        DecodeState(
            rows=_picked([state.rows for state in states], rows),
            images=_picked([state.images for state in states], rows),
            tokens=[_picked(tokens, rows) for tokens in zip(*(state.tokens for state in states), strict=True)],
            f_hats=[_picked(f_hats, rows) for f_hats in zip(*(state.f_hats for state in states), strict=True)],
            draft=draft,
            target=target,
        )
        for rows, draft, target in zip(choices, drafts, targets, strict=True)
    ]


def _assembled_networks(states: Sequence[NetworkState], choices: Sequence[Tensor]) -> list[NetworkState]:
    """Assemble states of a network that hold the scales it has read of all images, with both rows of guided images.

    Caches are copied and freed layer by layer, so that memory holds only one layer twice.
    """
    # 1. states without tokens, with the conditions of their images
    like, copies = states[0], states[0].copies
    pick = partial(_picked, copies=copies)
    conditions = [state.condition for state in states]
    length = min(state.cache.length for state in states)
    made = [
        replace(
            like,
            condition=Condition(
                pick([condition.embedding for condition in conditions], rows),
                [pick(blocks, rows) for blocks in zip(*(condition.blocks for condition in conditions), strict=True)],
                pick([condition.head for condition in conditions], rows),
            ),
            cache=like.model.new_cache(),
        )
        for rows in choices
    ]
    if not length:
        return made
    # 2. keys and values, each layer freed as soon as it is copied
    for i in range(len(made[0].cache.layers)):
        held = [state.cache.layers.pop(0).held() for state in states]
        for rows, state in zip(choices, made, strict=True):
            keys, values = (pick([tensor[:, :, :length] for tensor in side], rows) for side in zip(*held, strict=True))
            state.cache.layers[i].append(keys, values)
    return made


def _picked(tensors: Iterable[Tensor], rows: Tensor, copies: int = 1) -> Tensor:
    """Pick rows of all tensors joined. Each tensor, and the result, holds ``copies`` copies of its rows in sequence."""
    halves = zip(*(tensor.chunk(copies) for tensor in tensors), strict=True)
    return torch.cat([torch.cat(half).index_select(0, rows) for half in halves])
