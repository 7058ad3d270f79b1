"""Columns of cells, the steps of a roll: where they lie in a piece, what precedes them, and whether they come in order.

Dimensions: B canvases, R rows (patches) of a level, N patches of a row, C channels, F features of a cell, H x W cells,
h x w cells of a patch, n preceding columns that are shown, with their average and repeats if any, m rows of margin.
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

_ODD = 0x5851F42D4C957F2D  # multiplier of a 64-bit generator, Knuth's MMIX


@dataclass(frozen=True)
class Preceding:
    """The preceding columns: what the levels below the first read of the columns before a patch of the first level.

    They read the features of all cells of some columns just before it, the average features of each row over more
    columns, and what followed when the columns just before it last occurred in the canvas. Cells off the canvas are 0:
    silent, or black; the average is of the columns on the canvas alone.

    Args:
        patch: rows and columns of the first level's patches, (h, w).
        columns: number of the columns that are shown cell by cell.
        margin: m, how many rows above and below its own a patch is shown.
        average: number of the columns that are averaged; 0 for no average.
        repeats: for each of these numbers of columns, the w columns that followed the latest earlier occurrence of that
            many columns just before the patch are shown, their features x as 2 x - 1; they are 0 if there is none.
    """

    patch: tuple[int, int]
    columns: int
    margin: int
    average: int = 0
    repeats: tuple[int, ...] = ()

    @property
    def shown(self) -> int:
        """n: how many values of a feature a row is shown, of columns, of their average and of repeats; 0 for none."""
        return self.columns + (self.average > 0) + self.patch[1] * len(self.repeats)

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
        first = torch.arange(0, count * width, width, device=canvas.device)
        cells = features(F.pad(canvas, (self.columns, 0, self.margin, self.margin)))
        parts = []
        if self.columns:
            parts = [cells.unfold(3, self.columns, width)[:, :, :, :count]]  # [B, F, H + 2 m, columns of patches, n]
        if self.average:
            sums = F.pad(cells[..., self.columns :].cumsum(3), (1, 0))
            past = sums[..., first] - sums[..., (first - self.average).clamp(min=0)]
            parts.append((past / first.clamp(1, self.average))[..., None])
        if self.repeats:
            places = self._repeats(canvas, first.expand(len(canvas), -1))  # [B, columns of patches, k]
            index = places.clamp(min=0).flatten(1)[:, None, None].expand(-1, *cells.shape[1:3], -1)
            after = cells[..., self.columns :].gather(3, index).unflatten(3, places.shape[1:])
            parts.append(_contrasted(after, places[:, None, None]))
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
        whole = unpatchify(patches[row], grid)
        canvas = F.pad(whole, (reach, 0, self.margin, self.margin))
        rows = (index // grid[1] * height)[:, None] + torch.arange(height + 2 * self.margin, device=row.device)
        first = index % grid[1] * width
        places = first[:, None] + torch.arange(reach, device=row.device)
        if self.repeats:
            repeats = self._repeats(whole, first[:, None])[:, 0]
            places = torch.cat([places, reach + repeats.clamp(min=0)], dim=1)
        number = torch.arange(len(row), device=row.device)[:, None, None]
        cells = features(canvas[number, :, rows[:, :, None], places[:, None]].permute(0, 3, 1, 2))
        parts = [cells[..., reach - self.columns : reach]]
        if self.average:
            off = torch.arange(reach, device=row.device) < (reach - first.clamp(max=self.average))[:, None]
            past = cells[..., :reach].masked_fill(off[:, None, None], 0).sum(3)
            parts.append((past / first.clamp(1, self.average)[:, None, None])[..., None])
        if self.repeats:
            parts.append(_contrasted(cells[..., reach:], repeats[:, None, None]))
        return torch.cat(parts, dim=-1)

    def _repeats(self, canvas: Tensor, first: Tensor) -> Tensor:
        """Find what followed the latest earlier occurrence of the columns just before some patches.

        Args:
            canvas: symbols ``[B, C, H, W]``; what a patch and all after it hold makes no difference to the patch.
            first: number of the first column of each patch, int64 ``[B, N]``.

        Returns:
            Numbers of columns, int64 ``[B, N, k]``: w for each entry of ``repeats``, -1 where there is no occurrence.
        """
        width, wide = self.patch[1], canvas.shape[3]
        keys, found = _keys(canvas.flatten(1, 2)), []
        for length in self.repeats:
            if length >= wide:
                found.append(first.new_full((*first.shape, width), -1))
                continue
            # the run of columns that begins at each one, and the run that ends just before each patch
            runs = _keys(keys.unfold(1, length, 1).movedim(2, 1))
            last = runs.gather(1, (first - length).clamp(min=0))
            begin = torch.arange(runs.shape[1], device=first.device)
            # what followed ends before the patch as well
            same = (runs[:, None] == last[..., None]) & (begin <= (first - length - width)[..., None])
            latest = torch.where(same, begin, -1).amax(2, keepdim=True)
            after = latest + length + torch.arange(width, device=first.device)
            found.append(after.masked_fill(latest < 0, -1))
        return torch.cat(found, dim=2)

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
        if min([*self.repeats, 1]) < 1:
            raise ValueError(f"preceding_repeats must be at least 1, not {list(self.repeats)}")
        if self.shown and (generator != "ar" or (scan == "row_major" and grid[0] > 1)):
            raise ValueError(
                "preceding_columns, preceding_average and preceding_repeats: the first level must visit its patches "
                "column by column: set its generator to ar and its scan to column_major, or turn these options off "
                "(0, 0 and [])"
            )


def _contrasted(cells: Tensor, places: Tensor) -> Tensor:
    """Return features x as 2 x - 1, so that silence differs from nothing, and 0 where the place is -1."""
    return (2 * cells - 1).masked_fill(places < 0, 0)


def _keys(columns: Tensor) -> Tensor:
    """Return a number for each column, int64 ``[B, W]``, from integers ``[B, K, W]``: equal columns have equal numbers.

    Different ones do not, but for accidents of one in 2 to the power of 64.
    """
    weights = torch.full((columns.shape[1], 1), _ODD, device=columns.device).cumprod(0)
    sums = (columns.long() * weights).sum(1)  # modulo 2 ** 64
    return sums ^ (sums >> 29)  # so that keys of keys do not depend on the sums of both places alone


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
