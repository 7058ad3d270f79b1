"""Masked autoregressive generator: the condition of a hidden patch depends on all visible ones."""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.fractal.canvas import neighbours
from litscale.models.fractal.generator import Generator


class MAR(Generator):
    """Masked generator. Hands down the patch's own state and its four neighbours'.

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
        """Conditions of all patches.

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
        embedded = self.embed(patches)
        assert self.mask_token is not None
        visible = torch.where(mask[..., None], self.mask_token.to(embedded.dtype), embedded)
        visible = visible if local is None else visible + local
        tokens = torch.cat([self.prefix_tokens(conditions, guide), visible], dim=1)
        middle = self.states(tokens, added, rope)[:, self.prefix :]
        return middle[:, :, None] if self.conditions_out == 1 else neighbours(middle, grid)
