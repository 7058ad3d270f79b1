"""The state of the network between scales of inference.

Dimensions: B images, D width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from litscale.models.layers.kv_cache import KVCache


class Condition(NamedTuple):
    """The modulation of the network by the classes of a batch, computed once for all scales.

    Attributes:
        embedding: embedding of the classes, ``[B, D]``.
        blocks: modulation of each block, ``[B, 1, 6, D]``.
        head: modulation before the head, ``[B, 1, 2, D]``.
    """

    embedding: Tensor
    blocks: list[Tensor]
    head: Tensor

    def leading(self, rows: int) -> Condition:
        """Return the modulation of the first ``rows`` rows only."""
        if rows == len(self.embedding):
            return self
        return Condition(self.embedding[:rows], [block[:rows] for block in self.blocks], self.head[:rows])


class Cache:
    """Keys and values of all blocks.

    Args:
        depth: number of blocks.
        capacity: largest number of tokens.
    """

    def __init__(self, depth: int, capacity: int) -> None:
        self.layers = [KVCache(capacity) for _ in range(depth)]

    @property
    def length(self) -> int:
        """Number of tokens held."""
        return self.layers[0].length

    def truncate(self, length: int) -> None:
        """Drop all tokens from ``length`` on.

        Raises:
            ValueError: ``length`` is negative, or larger than the number of tokens held.
        """
        for layer in self.layers:
            layer.truncate(length)

    def keep_leading(self, rows: int) -> None:
        """Drop all sequences but the first ``rows``, and free their memory."""
        for layer in self.layers:
            layer.keep_leading(rows)
