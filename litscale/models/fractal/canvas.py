"""Cutting a canvas into patches: grids, scan orders and neighbours.

Dimensions: B rows, C channels, H x W cells, N = rows x columns patches in raster order, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCANS = ("row_major", "column_major")


def grid_of(canvas: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Return the numbers of rows and columns of patches into which a canvas is cut.

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
    """Cut canvases ``[B, C, H, W]`` into patches ``[B, N, C, h, w]``."""
    batch, channels, height, width = canvas.shape
    rows, columns = height // patch[0], width // patch[1]
    cut = canvas.reshape(batch, channels, rows, patch[0], columns, patch[1])
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels, *patch)


def unpatchify(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Join patches ``[B, N, C, h, w]`` into canvases ``[B, C, H, W]``."""
    batch, _, channels, height, width = patches.shape
    cut = patches.reshape(batch, *grid, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return cut.reshape(batch, channels, grid[0] * height, grid[1] * width)


def scan_places(grid: tuple[int, int], scan: str) -> list[int]:
    """Return the raster index of the patch visited at each position, as a list that is made on the host."""
    rows, columns = grid
    if scan == "row_major":
        return list(range(rows * columns))
    return [row * columns + column for column in range(columns) for row in range(rows)]


def scan_order(grid: tuple[int, int], scan: str, device: torch.device | None = None) -> Tensor:
    """Return the raster index of the patch visited at each position, int64 ``[N]``."""
    raster = torch.arange(grid[0] * grid[1], device=device)
    return raster if scan == "row_major" else raster.reshape(grid).t().reshape(-1)


def neighbours(middle: Tensor, grid: tuple[int, int]) -> Tensor:
    """Gather each patch's own state and those above, right, below and left of it, zeros outside the grid.

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
