"""Autoregressive generator: the condition of a patch depends on the patches before it in scan order."""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.fractal.generator import Generator


class AR(Generator):
    """Next-patch generator: the state *before* a patch is its condition, so conditions 0..k do not see patch k.

    Shapes as in :mod:`litscale.models.fractal.generator`.
    """

    style = "llama"
    causal = True

    def forward(
        self, patches: Tensor, conditions: Tensor, grid: tuple[int, int], guide: Tensor | None = None
    ) -> Tensor:
        """Conditions of all patches at once, teacher-forced.

        Args:
            patches: features ``[B, N, P]``, raster order.
            conditions: ``[B, K, C]``.
            grid: rows and columns.
            guide: features of the guiding value ``[B, G]``.

        Returns:
            ``[B, N, 1, D]``, raster order.
        """
        order = self.order(grid, patches.device)
        added, rope = self.position_tables(grid, order)
        # the last patch conditions nothing, so its token is left out
        tokens = torch.cat([self.prefix_tokens(conditions, guide), self.embed(patches[:, order[:-1]])], dim=1)
        states = self.states(tokens, added[:-1], None if rope is None else rope[:-1])
        middle = torch.empty_like(states[:, self.prefix - 1 :])
        middle[:, order] = states[:, self.prefix - 1 :]
        return middle[:, :, None]

    def stepper(self, conditions: Tensor, grid: tuple[int, int], guide: Tensor | None, cached: bool) -> ARStepper:
        """Start a sequence that is fed patch by patch; arguments as in :meth:`forward`."""
        return ARStepper(self, conditions, grid, guide, cached)


class ARStepper:
    """One pass of an AR generator over a sequence that is still being written.

    With a cache each step embeds and attends for the new tokens only; without, the whole sequence is run again.
    """

    def __init__(
        self, generator: AR, conditions: Tensor, grid: tuple[int, int], guide: Tensor | None, cached: bool
    ) -> None:
        self.generator = generator
        self.order = generator.order(grid, conditions.device)
        self._added, self._rope = generator.position_tables(grid, self.order)
        self._caches = generator.caches(grid) if cached else None
        self._tokens = generator.prefix_tokens(conditions, guide)
        self._done = 0

    def feed(self, patches: Tensor) -> None:
        """Append the features ``[B, n, P]`` of the next patches in scan order."""
        self._tokens = torch.cat([self._tokens, self.generator.embed(patches)], dim=1)

    def condition(self) -> Tensor:
        """Condition ``[B, 1, D]`` of the next patch, given all that was fed."""
        length = self._done + self._tokens.shape[1]
        span = slice(self._done, length)
        rope = None if self._rope is None else self._rope[span]
        states = self.generator.states(self._tokens, self._added[span], rope, self._caches)
        if self._caches is not None:
            self._done, self._tokens = length, self._tokens[:, :0]
        return states[:, -1:]
