"""The scales of a token pyramid: their sides, resizing between them, and which phi convolution serves which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def shrink(x: Tensor, size: int) -> Tensor:
    """Resize maps ``[B, C, h, w]`` to ``[B, C, size, size]`` by area (adaptive average)."""
    return x if x.shape[-2:] == (size, size) else F.interpolate(x, size=(size, size), mode="area")


def grow(x: Tensor, size: int) -> Tensor:
    """Resize maps ``[B, C, h, w]`` to ``[B, C, size, size]`` bicubically (a = -0.75, half-pixel centres)."""
    return x if x.shape[-2:] == (size, size) else F.interpolate(x, size=(size, size), mode="bicubic")


def phi_index(k: int, scales: int, phis: int) -> int:
    """Return which of the phi convolutions serves scale ``k``: the one whose tick is nearest to ``k / (scales - 1)``.

    Ties are decided by double-precision rounding, as in the official code, whose weights depend on it.

    Args:
        k: scale.
        scales: S.
        phis: number of convolutions; 0 for one per scale.
    """
    if not phis:
        return k
    if phis == 1 or scales == 1:
        return 0
    first = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    step = ((1 - first) - first) / (phis - 1)
    ticks = [i * step + first for i in range(phis - 1)] + [1 - first]
    return min(range(phis), key=lambda i: abs(ticks[i] - k / (scales - 1)))


def check_patch_nums(patch_nums: Sequence[int], last: int | None = None) -> tuple[int, ...]:
    """Check the sides of the scales and return them.

    Raises:
        ValueError: they are not positive and increasing, or do not end at ``last``.
    """
    sides = tuple(patch_nums)
    if not sides or sides[0] < 1 or any(b <= a for a, b in pairwise(sides)):
        raise ValueError(f"patch_nums must be positive and increasing, not {list(sides)}")
    if last is not None and sides[-1] != last:
        raise ValueError(f"patch_nums must end at the latent size {last}, not at {sides[-1]}: {list(sides)}")
    return sides


def token_masks(known: Tensor, patch_nums: Sequence[int]) -> list[Tensor]:
    """Derive which tokens are known: those of which at least half of the pixels are.

    Args:
        known: bool ``[B, H, W]``.
        patch_nums: side of each scale's token map.

    Returns:
        bool ``[B, n]`` for each scale, with n its side squared.
    """
    pixels = known[:, None].float()
    return [shrink(pixels, side).flatten(1) >= 0.5 for side in patch_nums]
