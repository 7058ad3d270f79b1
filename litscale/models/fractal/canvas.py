"""Cutting a canvas into patches: grids, scan orders and neighbours.

Dimensions: B rows, C channels, H x W cells, N = rows x columns patches in raster order, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SCANS = ("row_major", "column_major")


def grid_of(canvas: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        ValueError: the patch does not divide the canvas.
    """
    if canvas[0] % patch[0] or canvas[1] % patch[1]:
        raise ValueError(
            f"a patch of {patch[0]}x{patch[1]} does not divide a canvas of {canvas[0]}x{canvas[1]} (pitch x time or "
            f"height x width): change sizes, the data's pitch_range or its window"
        )
    return canvas[0] // patch[0], canvas[1] // patch[1]


def patchify(canvas: Tensor, patch: tuple[int, int]) -> Tensor:
    """``[B, C, H, W]`` -> ``[B, N, C, h, w]``."""
    batch, channels, height, width = canvas.shape
    rows, columns = height // patch[0], width // patch[1]
    cut = canvas.reshape(batch, channels, rows, patch[0], columns, patch[1])
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels, *patch)


def unpatchify(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[B, N, C, h, w]`` -> ``[B, C, H, W]``."""
    batch, _, channels, height, width = patches.shape
    cut = patches.reshape(batch, *grid, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(batch, channels, grid[0] * height, grid[1] * width)


def preceding(canvas: Tensor, patch: tuple[int, int], columns: int, margin: int) -> Tensor:
    """What comes just before each patch: the columns to the left of it, in its rows and some more; 0 off the canvas.

    Args:
        canvas: ``[B, C, H, W]``.
        patch: rows and columns of a patch.
        columns: n, how many.
        margin: m, how many rows more above and below the patch.

    Returns:
        ``[B, N, C, h + 2 m, n]``.
    """
    height, width = patch
    cut = F.pad(canvas, (columns, 0, margin, margin)).unfold(2, height + 2 * margin, height)
    cut = cut.unfold(3, columns, width)[:, :, :, : canvas.shape[3] // width]  # [B, C, rows, columns, h + 2 m, n]
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def preceding_some(
    patches: Tensor, grid: tuple[int, int], row: Tensor, index: Tensor, columns: int, margin: int
) -> Tensor:
    """What comes just before some patches, as :func:`preceding`.

    Args:
        patches: of canvases, ``[B, N, C, h, w]``.
        grid: rows and columns of patches.
        row: which canvas, int64 ``[r]``.
        index: which of its patches, int64 ``[r]``.
        columns: n.
        margin: m.

    Returns:
        ``[r, C, h + 2 m, n]``.
    """
    height, width = patches.shape[3:]
    canvas = F.pad(unpatchify(patches[row], grid), (columns, 0, margin, margin))
    device = patches.device
    rows = (index // grid[1] * height)[:, None] + torch.arange(height + 2 * margin, device=device)
    places = (index % grid[1] * width)[:, None] + torch.arange(columns, device=device)
    number = torch.arange(len(row), device=device)[:, None, None]
    return canvas[number, :, rows[:, :, None], places[:, None]].permute(0, 3, 1, 2)


def narrowed(before: Tensor, patch: tuple[int, int], grid: tuple[int, int], margin: int) -> Tensor:
    """The rows of what comes before a canvas that belong to each of its patches.

    Args:
        before: ``[R, C, H + 2 m, n]``, see :func:`preceding`.
        patch: rows and columns of a patch.
        grid: rows and columns of patches.
        margin: m.

    Returns:
        ``[R, N, C, h + 2 m, n]``.
    """
    cut = before.unfold(2, patch[0] + 2 * margin, patch[0]).permute(0, 2, 1, 4, 3)  # [R, rows, C, h + 2 m, n]
    return cut.repeat_interleave(grid[1], dim=1)


def scan_places(grid: tuple[int, int], scan: str) -> list[int]:
    """Raster index of the patch visited at each position, without asking a device."""
    rows, columns = grid
    if scan == "row_major":
        return list(range(rows * columns))
    return [row * columns + column for column in range(columns) for row in range(rows)]


def scan_order(grid: tuple[int, int], scan: str, device: torch.device | None = None) -> Tensor:
    """Raster index of the patch visited at each position, int64 ``[N]``."""
    raster = torch.arange(grid[0] * grid[1], device=device)
    return raster if scan == "row_major" else raster.reshape(grid).t().reshape(-1)


def neighbours(middle: Tensor, grid: tuple[int, int]) -> Tensor:
    """Each patch's own state and those above, right, below and left of it, zeros outside the grid.

    Args:
        middle: ``[B, N, D]``.
        grid: rows and columns.

    Returns:
        ``[B, N, 5, D]``: middle, top, right, bottom, left.
    """
    batch, _, width = middle.shape
    rows, columns = grid
    padded = torch.nn.functional.pad(middle.reshape(batch, rows, columns, width), (0, 0, 1, 1, 1, 1))
    shifts = ((1, 1), (0, 1), (1, 2), (2, 1), (1, 0))  # (row, column) of the window in the padded grid
    views = [padded[:, r : r + rows, c : c + columns] for r, c in shifts]
    return torch.stack(views, dim=3).reshape(batch, rows * columns, 5, width)
