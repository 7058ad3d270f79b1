"""Keys and values of the tokens that attention has already seen."""

from __future__ import annotations

import torch
from torch import Tensor

Attended = tuple[Tensor, Tensor, Tensor, Tensor | None]  # queries, keys, values and a mask


class KVCache:
    """The keys and values of one attention layer, in memory reserved once.

    Args:
        capacity: largest number of tokens ``L`` that will be held.

    Attributes:
        length: number of tokens held now.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add tokens, and return all cached tokens of their sequences.

        Args:
            keys: ``[B, heads, new, d]``; if there are fewer sequences than before, they are the first ones, and the
                others must not be read beyond their last token.
            values: ``[B, heads, new, d]``.

        Returns:
            Keys and values ``[B, heads, length, d]``, views of the cache.

        Raises:
            ValueError: more tokens than the capacity.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} are needed")
        self._reserve(keys)
        assert self._keys is not None
        assert self._values is not None
        rows = len(keys)
        self._keys[:rows, :, self.length : end] = keys
        self._values[:rows, :, self.length : end] = values
        self.length = end
        return self._keys[:rows, :, :end], self._values[:rows, :, :end]

    def _reserve(self, keys: Tensor) -> None:
        """Allocate memory for sequences with keys like these, ``[B, heads, new, d]``, unless that was done before."""
        if self._keys is None:
            batch, heads, _, dim = keys.shape
            self._keys = keys.new_empty(batch, heads, self.capacity, dim)
            self._values = torch.empty_like(self._keys)

    def held(self) -> tuple[Tensor, Tensor]:
        """Return the cached keys and values ``[B, heads, length, d]`` as views; the cache must not be empty."""
        assert self._keys is not None
        assert self._values is not None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def keep_leading(self, rows: int) -> None:
        """Drop all sequences but the first ``rows``, and free their memory."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[:rows].clone(), self._values[:rows].clone()

    def truncate(self, length: int) -> None:
        """Drop all tokens from ``length`` on.

        Raises:
            ValueError: ``length`` is negative, or larger than the number of tokens held.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached tokens to {length}")
        self.length = length


class StepKVCache(KVCache):
    """A cache that holds queries, too, so that one operator writes a token of each sequence and none has to read it.

    It takes half as much memory again. Batches of sequences use the same memory one after the other: truncate to 0.

    Args:
        capacity: largest number of tokens of a sequence.
        heads: number of heads of the attention layer.
    """

    def __init__(self, capacity: int, heads: int) -> None:
        super().__init__(capacity)
        self.heads = heads
        self._memory: Tensor | None = None
        self._queries: Tensor | None = None
        self._steps: dict[int, tuple[Tensor, Attended]] = {}  # by place: where it is written, and what is returned

    def append_token(self, projected: Tensor) -> Attended:
        """Add one token of each sequence.

        Args:
            projected: queries, keys and values of all heads, ``[B, 3 D]``.

        Returns:
            Views of the cache: the tokens' queries ``[B, heads, 1, d]``, keys and values of all tokens, ``[B, heads,
            length, d]``; and None, as no mask is needed.
        """
        memory = self.memory(projected, projected.shape[1])
        i = self.length
        if i not in self._steps:  # the views of a place are made once for all sequences
            assert self._queries is not None
            assert self._keys is not None
            assert self._values is not None
            seen = slice(i + 1)
            views = self._queries[:, :, i : i + 1], self._keys[:, :, seen], self._values[:, :, seen]
            self._steps[i] = memory[:, i], (*views, None)
        place, attended = self._steps[i]
        place.copy_(projected)
        self.length = i + 1
        return attended

    def memory(self, like: Tensor, width: int) -> Tensor:
        """Return the memory, ``[B, capacity, width]``; it is allocated like ``like``, ``[B, ...]``, when B changes."""
        if self._memory is None or len(self._memory) != len(like):
            self._memory = like.new_zeros(len(like), self.capacity, width)
            self._queries, self._keys, self._values = by_head(self._memory, self.heads)
            self._steps = {}
        return self._memory

    def _reserve(self, keys: Tensor) -> None:
        self.memory(keys, 3 * self.heads * keys.shape[3])


class StaticKVCache:
    """The memory of a :class:`StepKVCache` within a compiled graph; one graph serves all places of a sequence.

    Args:
        memory: ``[B, capacity, 3 D]``.
        heads: number of heads of the attention layer.
        at: place of the next token, int64 ``[1]``.
    """

    def __init__(self, memory: Tensor, heads: int, at: Tensor) -> None:
        self._memory, self._heads, self._at = memory, heads, at

    def append_token(self, projected: Tensor) -> Attended:
        """Add one token of each sequence, as a :class:`StepKVCache` does.

        Returns:
            The tokens' queries, the keys and values of all places, and a mask of the written places, bool ``[1, 1, 1,
            S]``.
        """
        token = projected[:, None].to(self._memory.dtype)
        self._memory.index_copy_(1, self._at, token)
        _, k, v = by_head(self._memory, self._heads)
        seen = torch.arange(self._memory.shape[1], device=self._at.device) <= self._at
        return by_head(token, self._heads)[0], k, v, seen[None, None, None]


TokenCache = StepKVCache | StaticKVCache


def by_head(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split projected tokens ``[B, L, 3 D]`` into queries, keys and values, views ``[B, heads, L, d]`` each."""
    q, k, v = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


class RowKVCache:
    """The keys and values of one attention layer, each of whose sequences is written at its own places.

    Args:
        rows: number of sequences.
        capacity: largest number of tokens of a sequence.

    Attributes:
        length: number of places before the next tokens in the longest sequence.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._selected: Tensor | None = None
        self._places: Tensor | None = None

    def turn(self, length: int, rows: Tensor | None = None, places: Tensor | None = None) -> None:
        """Set where :meth:`append` writes next.

        Args:
            length: see above.
            rows: sequences that get new tokens, int64 ``[r]``; None for all.
            places: place of each new token, int64 ``[r, new]``; None if all sequences continue at ``length``.
        """
        self.length, self._selected, self._places = length, rows, places

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write tokens ``[r, heads, new, d]``.

        Returns:
            Keys and values ``[r, heads, length + new, d]`` of these sequences. Places to which nothing was written
            hold arbitrary numbers: mask them.
        """
        if self._keys is None or self._values is None:
            self._keys = keys.new_zeros(self.rows, keys.shape[1], self.capacity, keys.shape[3])
            self._values = torch.zeros_like(self._keys)
        seen, rows, held = self.length + keys.shape[2], self._selected, []
        for store, new in ((self._keys, keys), (self._values, values)):
            if self._places is None:
                store[:, :, self.length : seen] = new
            else:
                row = torch.arange(self.rows, device=new.device) if rows is None else rows
                store[row[:, None], :, self._places] = new.transpose(1, 2)
            held.append((store if rows is None else store[rows])[:, :, :seen])
        return held[0], held[1]
