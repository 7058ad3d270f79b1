"""Masked autoregressive generator: the condition of a hidden patch depends on all visible ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.canvas import neighbours
from litscale.models.fractal.generator import Generator
from litscale.models.layers.kv_cache import RowKVCache


class MAR(Generator):
    """Masked generator, which hands down the patch's own state and its four neighbours'.

    Shapes as in :mod:`litscale.models.fractal.generator`.
    """

    style = "vit"
    causal = False

    def forward(
        self,
        patches: Tensor,
        conditions: Tensor,
        grid: tuple[int, int],
        guide: Tensor | None = None,
        local: Tensor | None = None,
        *,
        mask: Tensor,
    ) -> Tensor:
        """Compute the conditions of all patches.

        Args:
            patches: features ``[B, N, P]``, raster order.
            conditions: ``[B, K, C]``.
            grid: rows and columns.
            guide: features of the guiding value ``[B, G]``.
            local: local conditioning of the patches, ``[B, N, D]``.
            mask: bool ``[B, N]``, True where the patch is hidden.

        Returns:
            ``[B, N, 5, D]``: middle, top, right, bottom, left; with ``lone`` only the first.
        """
        added, rope = self.position_tables(grid, self.order(grid, patches.device))
        tokens = torch.cat([self.prefix_tokens(conditions, guide), self.tokens(patches, mask, local)], dim=1)
        return self.handed(self.states(tokens, added, rope)[:, self.prefix :], grid)

    def tokens(self, patches: Tensor, mask: Tensor, local: Tensor | None) -> Tensor:
        """Embed features ``[B, n, P]`` as tokens ``[B, n, D]``, mask tokens where the bool mask ``[B, n]`` is true."""
        embedded = self.embed(patches)
        assert self.mask_token is not None
        visible = torch.where(mask[..., None], self.mask_token.to(embedded.dtype), embedded)
        return visible if local is None else visible + local

    def handed(self, middle: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turn the states of all patches ``[B, N, D]`` into their conditions, as :meth:`forward` returns them."""
        return middle[:, :, None] if self.conditions_out == 1 else neighbours(middle, grid)


class MARSteps:
    """Computes the conditions of canvases that are revealed step by step; a step need not compute all patches again.

    Keys, values and states of the others stay what they were in the last step that computed them: the token cache of
    LazyMAR (arXiv 2503.12450), which changes samples slightly.

    Args:
        generator: the network.
        conditions: ``[B, K, C]``.
        grid: rows and columns.
        guide: features of the guiding value ``[B, G]``.
        local: local conditioning of the patches, ``[B, N, D]``.
        cached: whether there are steps that do not compute all patches.
    """

    def __init__(
        self,
        generator: MAR,
        conditions: Tensor,
        grid: tuple[int, int],
        guide: Tensor | None,
        local: Tensor | None,
        *,
        cached: bool,
    ) -> None:
        self._generator, self._grid, self._local = generator, grid, local
        self._prefix = generator.prefix_tokens(conditions, guide)
        self._added, self._rope = generator.position_tables(grid, generator.order(grid, conditions.device))
        # one place more, here and in the states, takes what is computed for rows with fewer patches than others
        capacity = len(self._added) + 1
        self._caches = [RowKVCache(len(conditions), capacity) for _ in generator.blocks] if cached else None
        self._states = self._prefix.new_empty(0)

    def conditions(self, patches: Tensor, mask: Tensor, index: Tensor | None = None) -> Tensor:
        """Compute the conditions of all N patches, as :meth:`MAR.forward` returns them.

        Args:
            patches: features of those that are computed, ``[B, n, P]``.
            mask: whether they are hidden, bool ``[B, n]``.
            index: their raster indices, int64 ``[B, n]``, and N where a row has fewer; None for all patches, as in the
                first call.
        """
        generator, length = self._generator, len(self._added)
        if index is None:
            tokens = torch.cat([self._prefix, generator.tokens(patches, mask, self._local)], dim=1)
            for cache in self._caches or []:
                cache.turn(0)
            states = generator.states(tokens, self._added, self._rope, self._caches)
            self._states = F.pad(states[:, generator.prefix :], (0, 0, 0, 1))
        else:
            row, places = torch.arange(len(index), device=index.device)[:, None], index + generator.prefix
            for cache in self._caches or []:
                cache.turn(length - index.shape[1], places=places)
            at = places.clamp(max=length - 1)  # what is computed for nothing may have any position
            rope = None if self._rope is None else self._rope[at][:, None]
            local = None if self._local is None else self._local[row, at - generator.prefix]
            tokens = generator.tokens(patches, mask, local)
            states = generator.states(tokens, self._added[at], rope, self._caches)
            self._states[row, index] = states
        return generator.handed(self._states[:, :-1], self._grid)
