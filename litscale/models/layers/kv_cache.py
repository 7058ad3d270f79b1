"""Keys and values of the tokens that attention has already seen."""

from __future__ import annotations

import torch
from torch import Tensor


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
        """Add tokens and return all that are held.

        Args:
            keys: ``[B, heads, new, d]``.
            values: ``[B, heads, new, d]``.

        Returns:
            Keys and values ``[B, heads, length, d]``, views of the cache.

        Raises:
            ValueError: more tokens than the capacity.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} are needed")
        if self._keys is None or self._values is None:
            batch, heads, _, dim = keys.shape
            self._keys = keys.new_empty(batch, heads, self.capacity, dim)
            self._values = torch.empty_like(self._keys)
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self.held()

    def held(self) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, heads, length, d]``, views of the cache; something was appended before."""
        assert self._keys is not None
        assert self._values is not None
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def truncate(self, length: int) -> None:
        """Forget all tokens from ``length`` on.

        Raises:
            ValueError: ``length`` is negative or beyond what is held.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached tokens to {length}")
        self.length = length


class RowKVCache:
    """The keys and values of one attention layer whose sequences are written at places of their own.

    Args:
        rows: number of sequences.
        capacity: largest number of tokens of a sequence.

    Attributes:
        length: number of places before the next tokens, of the longest sequence.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._selected: Tensor | None = None
        self._places: Tensor | None = None

    def turn(self, length: int, rows: Tensor | None = None, places: Tensor | None = None) -> None:
        """Say where :meth:`append` writes next.

        Args:
            length: see above.
            rows: sequences that go on, int64 ``[r]``; None for all.
            places: of each new token, int64 ``[r, new]``; None where all go on at ``length``.
        """
        self.length, self._selected, self._places = length, rows, places

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write tokens ``[r, heads, new, d]``.

        Returns:
            Keys and values ``[r, heads, length + new, d]`` of these sequences. Places that a sequence has not written
            hold anything: mask them.
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
