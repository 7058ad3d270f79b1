"""Random numbers that are a function of what they are for, not of when they are drawn.

They are made with the mixing function of SplitMix64 (Steele et al., OOPSLA 2014) in wrapping 64-bit arithmetic, so the
bits are the same on every device. Dimensions: B canvases or rows.
"""

from __future__ import annotations

from ctypes import string_at
from random import Random

import torch
from torch import Tensor

STEP = 0x9E3779B97F4A7C15


def host_random() -> Random:
    """Make a random generator for numbers that the host needs, seeded from torch's; each call makes a different one.

    Numbers that torch draws would have to be read from a tensor, which fake tensors (``FakeTensorMode``) refuse.
    """
    state = torch.get_rng_state()
    torch.rand(1, device="cpu")  # moves the state on
    return Random(string_at(state.data_ptr(), len(state)))


def signed(x: int) -> int:
    """Return an integer as int64 represents its low 64 bits, between -2**63 and 2**63 - 1."""
    return (x + 2**63) % 2**64 - 2**63


def mixed(x: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser to int64 numbers in place, and return them. Masks make its shifts logical."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= (x >> shift).bitwise_and_(2 ** (64 - shift) - 1)
        x *= signed(factor)
    x ^= (x >> 31).bitwise_and_(2**33 - 1)
    return x


def canvas_keys(canvas: Tensor, seed: int) -> Tensor:
    """Compute a key for each canvas that depends only on its content and the seed.

    Args:
        canvas: symbols, uint8 ``[B, C, H, W]``.
        seed: any integer.

    Returns:
        int64 ``[B]``.
    """
    cells = canvas.flatten(1).long()
    cells += 256 * torch.arange(1, cells.shape[1] + 1, device=canvas.device)
    start = mixed(torch.full((1,), signed(seed), dtype=torch.long, device=canvas.device))
    # a sum of mixed numbers is the same in whatever order a device adds them up
    return mixed(mixed(cells * signed(STEP)).sum(1) ^ start)


def cell_keys(seed: int, index: Tensor, rows: int, columns: int) -> Tensor:
    """Compute a key for each cell that depends only on the seed, the canvas' number and the cell's place.

    Args:
        seed: any integer.
        index: number of each canvas, int64 ``[B]``.
        rows: H.
        columns: W.

    Returns:
        int64 ``[B, 1, H, W]``.
    """
    key = mixed(torch.full((1, 1, 1, 1), signed(seed), dtype=torch.long, device=index.device))
    row = torch.arange(rows, device=index.device)[:, None]
    for word in (index[:, None, None, None], row, torch.arange(columns, device=index.device)):
        key = chained(key, word)
    return key


def chained(keys: Tensor, word: Tensor | int) -> Tensor:
    """Derive a new key, int64, from each key and a ``word``, such as an index (int64, broadcast)."""
    return mixed((keys ^ word) + signed(STEP))


def numbers(keys: Tensor, count: int) -> Tensor:
    """Derive ``count`` random numbers from each key, int64 ``[...]`` to int64 ``[..., count]`` over the whole range."""
    return chained(keys[..., None], torch.arange(count, device=keys.device))


def gumbel(keys: Tensor, count: int) -> Tensor:
    """Draw ``count`` values of standard Gumbel noise from each key: ``argmax(logits + noise)`` samples their softmax.

    The bits are the same on every device; the logarithms may differ in the last place.

    Args:
        keys: int64 ``[...]``.
        count: number of values.

    Returns:
        float32 ``[..., count]``, between -2.9 and 16.7.
    """
    bits = mixed(keys[..., None] + torch.arange(1, count + 1, device=keys.device) * signed(STEP))
    bits >>= 40
    bits &= 2**24 - 1
    bits |= 1  # odd multiples of 2**-24 are exact in float32 and never 0 or 1
    uniform = bits.float().mul_(2**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def uniform(bits: Tensor) -> Tensor:
    """Convert random int64, such as those of :func:`numbers`, to float32 in [0, 1), multiples of 2**-24."""
    return ((bits >> 40) & (2**24 - 1)).float() * 2**-24
