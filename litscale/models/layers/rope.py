"""Two-dimensional rotary position embedding (RoFormer, arXiv 2104.09864; one half of the pairs for each axis)."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_table(rows: Tensor, columns: Tensor, head_dim: int, base: float = 10000.0) -> Tensor:
    """Cosines and sines for tokens at the given grid cells.

    The first half of the rotated pairs turns with the row, the second half with the column.

    Args:
        rows: row of each token, ``[L]``.
        columns: column of each token, ``[L]``.
        head_dim: channels per head, a multiple of 4.
        base: the slowest pair turns once in about ``2 pi base`` cells.

    Returns:
        complex64 ``[L, head_dim / 2]``: the rotation of each pair.

    Raises:
        ValueError: ``head_dim`` is no multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(
            f"rotary positions need a head dimension (width / heads) that is a multiple of 4, not {head_dim}"
        )
    axis = head_dim // 2
    frequencies = base ** (-torch.arange(0, axis, 2, device=rows.device, dtype=torch.float32) / axis)
    angles = torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn adjacent channel pairs by the table's angles.

    Args:
        x: queries or keys ``[B, heads, L, d]``.
        table: complex ``[L, d / 2]``.

    Returns:
        ``[B, heads, L, d]`` in the dtype of ``x``.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)
