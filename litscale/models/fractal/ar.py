"""Autoregressive generator: the condition of a patch depends on the patches before it in scan order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.generator import Generator
from litscale.models.layers.kv_cache import RowKVCache, StepKVCache, TokenCache
from litscale.models.layers.rope import rope_of_projected


class AR(Generator):
    """Next-patch generator: the state *before* a patch is its condition, so conditions 0..k do not see patch k.

    Shapes as in :mod:`litscale.models.fractal.generator`.
    """

    style = "llama"
    causal = True

    def forward(
        self,
        patches: Tensor,
        conditions: Tensor,
        grid: tuple[int, int],
        guide: Tensor | None = None,
        local: Tensor | None = None,
    ) -> Tensor:
        """Compute the conditions of all patches at once, teacher-forced.

        Args:
            patches: features ``[B, N, P]``, raster order.
            conditions: ``[B, K, C]``.
            grid: rows and columns.
            guide: features of the guiding value ``[B, G]``.
            local: local conditioning of the patches, ``[B, N, D]``.

        Returns:
            ``[B, N, 1, D]``, raster order.
        """
        order = self.order(grid, patches.device)
        added, rope = self.position_tables(grid, order)
        # the last patch conditions nothing, so its token is left out
        tokens = torch.cat([self.prefix_tokens(conditions, guide), self.embed(patches[:, order[:-1]])], dim=1)
        if local is not None:  # the token before a patch predicts it
            tokens = tokens + F.pad(local[:, order], (0, 0, self.prefix - 1, 0))
        states = self.states(tokens, added[:-1], None if rope is None else rope[:-1])
        middle = torch.empty_like(states[:, self.prefix - 1 :])
        middle[:, order] = states[:, self.prefix - 1 :]
        return middle[:, :, None]

    def step(self, token: Tensor, added: Tensor, rope: Tensor | None, caches: Sequence[TokenCache]) -> Tensor:
        """Map one token of each row to its state, ``[B, D]`` each, given the entries of its position in the tables."""
        return self.norm(self.blocks.step(self.in_norm(token + added), rope, caches))

    def tables(self, grid: tuple[int, int], cached: bool, kind: type[StepTables] | None = None) -> StepTables:
        """Make the tables and, if ``cached`` is true, the caches of sequences that are fed patch by patch."""
        added, rope = self.position_tables(grid, self.order(grid, self.pos_emb.device))
        turns = None if rope is None else rope_of_projected(rope, self.config.stack.heads)
        return (kind or StepTables)(added, rope, turns, self.blocks.caches(len(added)) if cached else None)

    def stepper(
        self, conditions: Tensor, guide: Tensor | None, tables: StepTables, local: Tensor | None = None
    ) -> ARStepper:
        """Start a sequence that is fed patch by patch; ``local`` is the result of :meth:`upcoming`."""
        return ARStepper(self, conditions, guide, tables, local)

    def beginning(self, conditions: Tensor, guide: Tensor | None, local: Tensor | None) -> Tensor:
        """Return the prefix tokens ``[B, prefix, D]``, the last of which predicts the first patch.

        ``local`` is the result of :meth:`upcoming`.
        """
        tokens = self.prefix_tokens(conditions, guide)
        return tokens if local is None else tokens + F.pad(local[:, :1], (0, 0, self.prefix - 1, 0))

    def upcoming(self, local: Tensor | None, grid: tuple[int, int]) -> Tensor | None:
        """Put the patches' local conditioning ``[B, N, D]`` in scan order and append zeros, ``[B, N + 1, D]``."""
        return None if local is None else F.pad(local[:, self.order(grid, local.device)], (0, 0, 0, 1))


@dataclass(frozen=True)
class StepTables:
    """Tables of positions, and caches, that sequences over one grid use one after the other.

    Attributes:
        added: embeddings of the positions, ``[S, D]``.
        rope: rotary table for a head, complex ``[S, d / 2]``, or None.
        turns: the same for all that attention projects, complex ``[S, 3 D / 2]``, or None.
        caches: one per block; None recomputes the whole sequence for each patch.
    """

    added: Tensor
    rope: Tensor | None
    turns: Tensor | None
    caches: list[StepKVCache] | None

    def step(self, generator: AR, token: Tensor, place: int) -> Tensor:
        """Map the tokens at this place of the sequences, ``[B, D]``, to their states; the caches hold earlier ones."""
        assert self.caches is not None
        return generator.step(token, *self._places[place], self.caches)

    @cached_property
    def _places(self) -> list[tuple[Tensor, Tensor | None]]:
        """Rows of ``added`` and ``turns``, as views that are made only once."""
        turns = [None] * len(self.added) if self.turns is None else self.turns.unbind(0)
        return list(zip(self.added.unbind(0), turns, strict=True))


class ARStepper:
    """One pass of an AR generator over a sequence that is still being written.

    With caches each step embeds and attends for the new tokens only.
    """

    def __init__(
        self, generator: AR, conditions: Tensor, guide: Tensor | None, tables: StepTables, local: Tensor | None
    ) -> None:
        self.generator, self._tables = generator, tables
        for cache in tables.caches or []:
            cache.truncate(0)
        self._local = iter(()) if local is None else iter(local[:, 1:].unbind(1))
        self._tokens = list(generator.beginning(conditions, guide, local).unbind(1))
        self._done = 0

    def feed(self, patch: Tensor) -> None:
        """Append the next patch in scan order, features ``[B, P]``."""
        token, local = self.generator.embed(patch), next(self._local, None)
        self._tokens.append(token if local is None else token + local)

    def condition(self) -> Tensor:
        """Return the condition ``[B, 1, D]`` of the next patch, given all patches that were fed."""
        generator, tables, caches = self.generator, self._tables, self._tables.caches
        if caches is not None and len(self._tokens) == 1:
            state = tables.step(generator, self._tokens[0], self._done)
        else:
            span = slice(self._done, self._done + len(self._tokens))
            rope = None if tables.rope is None else tables.rope[span]
            states = generator.states(torch.stack(self._tokens, dim=1), tables.added[span], rope, caches)
            state = states[:, -1].contiguous()  # graphs are compiled for each layout in memory
        if caches is not None:
            self._done += len(self._tokens)
            self._tokens = []
        return state[:, None]


class ARRows:
    """Sequences of an AR generator that are still being written, each of them at its own pace.

    Args:
        generator: the level's generator.
        conditions: ``[B, K, C]``.
        grid: rows and columns of patches.
        guide: features of the guiding value ``[B, G]``, or None.
        local: local conditioning of the patches, ``[B, N, D]``, or None.
    """

    def __init__(
        self,
        generator: AR,
        conditions: Tensor,
        grid: tuple[int, int],
        guide: Tensor | None,
        local: Tensor | None = None,
    ) -> None:
        self.generator = generator
        self._added, self._rope = generator.position_tables(grid, generator.order(grid, conditions.device))
        self._local = generator.upcoming(local, grid)
        self._prefix = generator.beginning(conditions, guide, self._local)
        # the last place takes what shorter sequences of a call are padded with
        self._caches = [RowKVCache(len(conditions), len(self._added) + 1) for _ in generator.blocks]

    def start(self, patches: Tensor, counts: list[int]) -> Tensor:
        """Read the conditions and the first patches.

        Args:
            patches: features ``[B, n, P]`` in scan order.
            counts: how many of them each sequence begins with.

        Returns:
            Condition ``[B, 1, D]`` of each sequence's next patch.
        """
        tokens = torch.cat([self._prefix, self._embed(None, patches, [0] * len(patches))], dim=1)
        prefix = self._prefix.shape[1]
        return self._run(None, tokens, [0] * len(tokens), [prefix + count for count in counts])

    def feed(self, rows: Tensor | None, patches: Tensor, at: list[int], counts: list[int]) -> Tensor:
        """Append patches to some of the sequences.

        Args:
            rows: the sequences, int64 ``[r]``; None for all.
            patches: features ``[r, n, P]`` of patches that follow each other in scan order.
            at: for each sequence, the number of patches that it holds.
            counts: for each sequence, how many of its n patches count; the others are padding.

        Returns:
            Condition ``[r, 1, D]`` of each sequence's next patch.
        """
        prefix = self._prefix.shape[1]
        return self._run(rows, self._embed(rows, patches, at), [prefix + place for place in at], counts)

    def _embed(self, rows: Tensor | None, patches: Tensor, at: list[int]) -> Tensor:
        """Embed consecutive patches as tokens ``[r, n, D]``; the arguments are those of :meth:`feed`."""
        tokens = self.generator.embed(patches)
        if self._local is None:
            return tokens
        row = torch.arange(len(tokens), device=tokens.device) if rows is None else rows
        place = torch.tensor(at, device=row.device)[:, None] + torch.arange(tokens.shape[1], device=row.device)
        return tokens + self._local[row[:, None], (place + 1).clamp(max=self._local.shape[1] - 1)]

    def _run(self, rows: Tensor | None, tokens: Tensor, at: list[int], counts: list[int]) -> Tensor:
        new, held, capacity, device = tokens.shape[1], max(at), len(self._added), tokens.device
        # 1. the places of the tokens: the same for all, where all sequences go on and are equally long
        mask = places = None
        if rows is None and min(at) == held:
            span: Tensor | slice = slice(held, held + new)
            rope = None if self._rope is None else self._rope[span]
        else:
            places = torch.tensor(at, device=device)[:, None] + torch.arange(new, device=device)
            seen = torch.arange(min(held + new, capacity + 1), device=device)
            mask = (seen <= places[..., None])[:, None]
            places = places.clamp(max=capacity)
            span = places.clamp(max=capacity - 1)
            rope = None if self._rope is None else self._rope[span][:, None]
        for cache in self._caches:
            cache.turn(held, rows, places)
        # 2. the states of the last tokens are the conditions of the next patches
        states = self.generator.states(tokens, self._added[span], rope, self._caches, mask)
        if min(counts) == new:
            return states[:, -1:]
        index = torch.tensor(counts, device=device) - 1
        return states[torch.arange(len(states), device=device), index][:, None]
