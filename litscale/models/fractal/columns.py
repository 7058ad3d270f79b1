"""Columns of cells, the steps of a roll: where they lie in a piece, what precedes them, and whether they come in order.

Dimensions: B canvases, R rows (patches) of a level, N patches of a row, C channels, H x W cells, h x w cells of a
patch, n preceding columns, m rows of margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.canvas import grid_of, unpatchify
from litscale.models.fractal.generator import Generator


@dataclass(frozen=True)
class Preceding:
    """What the levels below the first are shown of the columns just before a patch of the first level.

    Cells off the canvas are 0: silent, or black.

    Args:
        patch: rows and columns of the first level's patches, (h, w).
        columns: n; 0 where nothing is shown.
        margin: m, how many rows above and below its own a patch is shown.
    """

    patch: tuple[int, int]
    columns: int
    margin: int

    def of_all(self, canvas: Tensor) -> Tensor | None:
        """Before each patch of canvases ``[B, C, H, W]``: ``[B, N, C, h + 2 m, n]``, or None."""
        if not self.columns:
            return None
        height, width = self.patch
        cut = F.pad(canvas, (self.columns, 0, self.margin, self.margin)).unfold(2, height + 2 * self.margin, height)
        cut = cut.unfold(3, self.columns, width)[
            :, :, :, : canvas.shape[3] // width
        ]  # [B, C, rows, columns, h + 2 m, n]
        return cut.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)

    def of_some(self, patches: Tensor, grid: tuple[int, int], row: Tensor, index: Tensor) -> Tensor | None:
        """Before some patches.

        Args:
            patches: all of the canvases, ``[B, N, C, h, w]``.
            grid: rows and columns of patches.
            row: which canvas, int64 ``[r]``.
            index: which of its patches, int64 ``[r]``.

        Returns:
            ``[r, C, h + 2 m, n]``, or None.
        """
        if not self.columns:
            return None
        height, width = self.patch
        canvas = F.pad(unpatchify(patches[row], grid), (self.columns, 0, self.margin, self.margin))
        rows = (index // grid[1] * height)[:, None] + torch.arange(height + 2 * self.margin, device=row.device)
        places = (index % grid[1] * width)[:, None] + torch.arange(self.columns, device=row.device)
        number = torch.arange(len(row), device=row.device)[:, None, None]
        return canvas[number, :, rows[:, :, None], places[:, None]].permute(0, 3, 1, 2)

    def below(self, before: Tensor | None, patch: tuple[int, int], grid: tuple[int, int]) -> Tensor | None:
        """The rows of what comes before canvases that belong to each of their patches.

        Args:
            before: ``[R, C, H + 2 m, n]``, or None.
            patch: rows and columns of a patch, (h, w).
            grid: rows and columns of patches.

        Returns:
            ``[R, N, C, h + 2 m, n]``, or None.
        """
        if before is None:
            return None
        cut = before.unfold(2, patch[0] + 2 * self.margin, patch[0]).permute(0, 2, 1, 4, 3)  # [R, rows, C, h + 2 m, n]
        return cut.repeat_interleave(grid[1], dim=1)

    def check(self, generator: str, scan: str, grid: tuple[int, int]) -> None:
        """Check that the options are possible, and all of these columns known when a patch is predicted.

        Args:
            generator: of the first level.
            scan: of the first level.
            grid: rows and columns of its patches.

        Raises:
            ValueError: they are not.
        """
        if self.columns < 0 or self.margin < 0:
            raise ValueError("preceding_columns and preceding_margin must be at least 0")
        if self.columns and (generator != "ar" or (scan == "row_major" and grid[0] > 1)):
            raise ValueError(
                "preceding_columns: the first level must visit its patches column by column: set its generator to ar "
                "and its scan to column_major, or preceding_columns to 0"
            )


def first_columns(canvas: Tensor, patch: tuple[int, int], start: Tensor | None) -> Tensor:
    """Number of the first column of each patch within its piece.

    Args:
        canvas: ``[B, C, H, W]``.
        patch: rows and columns of a patch.
        start: number of each canvas' first column, int64 ``[B]``; None for 0.

    Returns:
        int64 ``[B, N]``.
    """
    columns = torch.arange(0, canvas.shape[3], patch[1], device=canvas.device).repeat(canvas.shape[2] // patch[0])
    return columns.expand(len(canvas), -1) if start is None else columns + start[:, None]


def one_after_the_other(sizes: Sequence[tuple[int, int]], generators: Sequence[Generator]) -> bool:
    """Whether levels predict all cells of a column before any of a later one.

    Args:
        sizes: of the canvas, and of each level's patches.
        generators: of the levels.
    """
    for canvas, patch, generator in zip(sizes, sizes[1:], generators, strict=False):
        rows, columns = grid_of(canvas, patch)
        upright = patch[1] == 1 and (generator.config.scan == "column_major" or columns == 1)
        if not generator.causal or (rows > 1 and not upright):
            return False
    return True
