"""Columns of cells, the steps of a roll: where they lie in a piece, what precedes them, and whether they come in order.

Dimensions: B canvases, R rows (patches) of a level, N patches of a row, C channels, F features of a cell, H x W cells,
h x w cells of a patch, n preceding columns and their average if there is one, m rows of margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.codec import SymbolFeatures
from litscale.models.fractal.canvas import grid_of, unpatchify
from litscale.models.fractal.generator import Generator


@dataclass(frozen=True)
class Preceding:
    """The preceding columns: what the levels below the first read of the columns before a patch of the first level.

    They read the features of all cells of some columns just before it, and the average features of each row over
    more columns. Cells off the canvas are 0: silent, or black; the average is of the columns on the canvas alone.

    Args:
        patch: rows and columns of the first level's patches, (h, w).
        columns: number of the columns that are shown cell by cell.
        margin: m, how many rows above and below its own a patch is shown.
        average: number of the columns that are averaged; 0 for no average.
    """

    patch: tuple[int, int]
    columns: int
    margin: int
    average: int = 0

    @property
    def shown(self) -> int:
        """n: how many values of a feature a row is shown, one for each column and one for the average; 0 for none."""
        return self.columns + (self.average > 0)

    def of_all(self, canvas: Tensor, features: SymbolFeatures) -> Tensor | None:
        """Return the preceding columns of all patches of canvases.

        Args:
            canvas: symbols ``[B, C, H, W]``.
            features: turns symbols into features.

        Returns:
            ``[B, N, F, h + 2 m, n]``, or None.
        """
        if not self.shown:
            return None
        height, width = self.patch
        count = canvas.shape[3] // width
        cells = features(F.pad(canvas, (self.columns, 0, self.margin, self.margin)))
        parts = []
        if self.columns:
            parts = [cells.unfold(3, self.columns, width)[:, :, :, :count]]  # [B, F, H + 2 m, columns of patches, n]
        if self.average:
            first = torch.arange(0, count * width, width, device=canvas.device)
            sums = F.pad(cells[..., self.columns :].cumsum(3), (1, 0))
            past = sums[..., first] - sums[..., (first - self.average).clamp(min=0)]
            parts.append((past / first.clamp(1, self.average))[..., None])
        cut = torch.cat(parts, dim=-1).unfold(2, height + 2 * self.margin, height)
        return cut.permute(0, 2, 3, 1, 5, 4).flatten(1, 2)

    def of_some(
        self, patches: Tensor, grid: tuple[int, int], row: Tensor, index: Tensor, features: SymbolFeatures
    ) -> Tensor | None:
        """Return the preceding columns of some patches.

        Args:
            patches: all patches of the canvases, symbols ``[B, N, C, h, w]``.
            grid: rows and columns of patches.
            row: number of the canvas of each patch, int64 ``[r]``.
            index: raster index of each patch in its canvas, int64 ``[r]``.
            features: turns symbols into features.

        Returns:
            ``[r, F, h + 2 m, n]``, or None.
        """
        if not self.shown:
            return None
        height, width = self.patch
        reach = max(self.columns, self.average)
        canvas = F.pad(unpatchify(patches[row], grid), (reach, 0, self.margin, self.margin))
        rows = (index // grid[1] * height)[:, None] + torch.arange(height + 2 * self.margin, device=row.device)
        first = index % grid[1] * width
        places = first[:, None] + torch.arange(reach, device=row.device)
        number = torch.arange(len(row), device=row.device)[:, None, None]
        cells = features(canvas[number, :, rows[:, :, None], places[:, None]].permute(0, 3, 1, 2))
        parts = [cells[..., reach - self.columns :]]
        if self.average:
            off = torch.arange(reach, device=row.device) < (reach - first.clamp(max=self.average))[:, None]
            past = cells.masked_fill(off[:, None, None], 0).sum(3)
            parts.append((past / first.clamp(1, self.average)[:, None, None])[..., None])
        return torch.cat(parts, dim=-1)

    def below(self, before: Tensor | None, patch: tuple[int, int], grid: tuple[int, int]) -> Tensor | None:
        """Cut the preceding columns of canvases into the rows that belong to each of their patches.

        Args:
            before: ``[R, F, H + 2 m, n]``, or None.
            patch: rows and columns of a patch, (h, w).
            grid: rows and columns of patches.

        Returns:
            ``[R, N, F, h + 2 m, n]``, or None.
        """
        if before is None:
            return None
        cut = before.unfold(2, patch[0] + 2 * self.margin, patch[0]).permute(0, 2, 1, 4, 3)  # [R, rows, F, h + 2 m, n]
        return cut.repeat_interleave(grid[1], dim=1)

    def check(self, generator: str, scan: str, grid: tuple[int, int]) -> None:
        """Check the options, and that all preceding columns are known when a patch is predicted.

        Args:
            generator: name of the first level's generator.
            scan: scan order of the first level.
            grid: rows and columns of its patches.

        Raises:
            ValueError: an option is negative, or the first level does not visit its patches column by column.
        """
        if min(self.columns, self.margin, self.average) < 0:
            raise ValueError("preceding_columns, preceding_margin and preceding_average must be at least 0")
        if self.shown and (generator != "ar" or (scan == "row_major" and grid[0] > 1)):
            raise ValueError(
                "preceding_columns and preceding_average: the first level must visit its patches column by column: set "
                "its generator to ar and its scan to column_major, or both options to 0"
            )


def first_columns(canvas: Tensor, patch: tuple[int, int], start: Tensor | None) -> Tensor:
    """Return the number of each patch's first column within its piece.

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
    """Return whether levels predict all cells of a column before any of a later one.

    Args:
        sizes: sizes of the canvas and of each level's patches.
        generators: generators of the levels.
    """
    for canvas, patch, generator in zip(sizes, sizes[1:], generators, strict=False):
        rows, columns = grid_of(canvas, patch)
        upright = patch[1] == 1 and (generator.config.scan == "column_major" or columns == 1)
        if not generator.causal or (rows > 1 and not upright):
            return False
    return True
