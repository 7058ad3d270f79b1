"""Two-dimensional rotary position embedding (RoFormer, arXiv 2104.09864; one half of the pairs for each axis)."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10000.0  # the slowest pair turns once in about 2 pi BASE cells


def rope_table(rows: Tensor, columns: Tensor, head_dim: int) -> Tensor:
    """Compute cosines and sines for tokens at the given grid cells.

    The first half of the rotated pairs turns with the row, the second half with the column.

    Args:
        rows: row of each token, ``[L]``.
        columns: column of each token, ``[L]``.
        head_dim: channels per head, a multiple of 4.

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
    frequencies = BASE ** (-torch.arange(0, axis, 2, device=rows.device, dtype=torch.float32) / axis)
    angles = torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent channel pairs by the table's angles.

    Args:
        x: queries or keys ``[B, heads, L, d]``, or all that is projected of one token, ``[B, 3 D]``.
        table: complex ``[L, d / 2]``, or a row of :func:`rope_of_projected`, ``[3 D / 2]``; or either
            as pairs of real numbers, ``[..., 2]``, for compiled graphs, whose compiler supports no complex ones.

    Returns:
        As ``x``.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    if table.is_complex():
        turned = torch.view_as_real(torch.view_as_complex(pairs) * table)
    else:
        (a, b), (cosine, sine) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def rope_of_projected(table: Tensor, heads: int) -> Tensor:
    """Extend the table of a head to all that attention projects: queries and keys of all heads turn, values do not.

    Args:
        table: complex ``[L, d / 2]``.
        heads: number of heads.

    Returns:
        complex ``[L, 3 heads d / 2]``.
    """
    turned = table.repeat(1, heads)
    return torch.cat([turned, turned, torch.ones_like(turned)], dim=1)
