"""Windows of rolls, as the data sets that loaders read.

Shapes: a canvas is uint8 ``[1, rows, window]``; row 0 is the lowest pitch kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.rolls.cache import RollCache
from litscale.storage.fingerprints import of_arrays


@dataclass
class Pieces:
    """Some pieces of a cache, as they are cut into windows.

    Attributes:
        cache: where the symbols are.
        chosen: indices into the cache, int64 ``[n]``.
        window: steps of a window.
        low: lowest MIDI pitch kept.
        rows: number of pitches kept.
        labels: class of each chosen piece, or None.
        meters: quarter notes per bar of each chosen piece, or None.
    """

    cache: RollCache
    chosen: np.ndarray
    _: KW_ONLY
    window: int
    low: int
    rows: int
    labels: Sequence[int] | None = None
    meters: Sequence[float] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each piece, int64 ``[n]``."""
        return self.cache.steps[self.chosen]

    def fingerprint(self) -> str:
        """Return the cache's name, which changes with the content of its pieces, and how they are cut."""
        labels = None if self.labels is None else np.array(self.labels)
        cut = f"{self.window} {self.low} {self.rows} {of_arrays(self.chosen, labels)}"
        return f"{self.cache.path.name} {cut}"

    def item(self, which: int, start: int, shift: int = 0) -> dict[str, Tensor]:
        """Return one window.

        Args:
            which: position in ``chosen``.
            start: its first step.
            shift: semitones up; only silent rows may leave the canvas.

        Returns:
            ``canvas`` uint8 ``[1, rows, window]``, ``start`` int64 ``[]``, with labels ``label`` int64 ``[]``, and with
            meters ``beats_per_bar`` float32 ``[]``.
        """
        symbols = self.symbols(which, start)
        canvas = np.zeros(symbols.shape, dtype=np.uint8)
        canvas[max(shift, 0) : self.rows + min(shift, 0)] = symbols[max(-shift, 0) : self.rows - max(shift, 0)]
        item = {"canvas": torch.from_numpy(canvas)[None], "start": torch.tensor(start)}
        if self.labels is not None:
            item["label"] = torch.tensor(self.labels[which])
        if self.meters is not None:
            item["beats_per_bar"] = torch.tensor(self.meters[which], dtype=torch.float32)
        return item

    def symbols(self, which: int, start: int) -> np.ndarray:
        """Return the symbols of a window, uint8 ``[rows, window]``, silent behind the end of the piece; see `item`."""
        piece = int(self.chosen[which])
        steps = min(self.window, int(self.cache.steps[piece]) - start)
        symbols = self.cache.window(piece, start, steps)[self.low : self.low + self.rows]
        return symbols if steps == self.window else np.pad(symbols, ((0, 0), (0, self.window - steps)))


class RandomCrops(Dataset):
    """Random crops for training: item ``(epoch, index)`` is a function of the seed, the epoch and the index alone.

    So it is the same for any number of workers and ranks, and after a resume. A piece is drawn with a probability
    proportional to its length, then the crop's start, then its transposition, each of the possible ones alike.

    Args:
        pieces: what to draw from.
        size: items of an epoch.
        seed: at least 0.
        transpose: crops move by at most so many semitones up or down, and never so far that a note leaves the canvas.
    """

    def __init__(self, pieces: Pieces, size: int, seed: int, transpose: int = 0) -> None:
        self.pieces = pieces
        self.size = size
        self.seed = seed
        self.transpose = transpose
        self._lengths = pieces.lengths
        self._ends = np.cumsum(self._lengths)

    def __len__(self) -> int:
        return self.size

    @property
    def contents(self) -> str:
        """The number of pieces, and the number and length of the windows."""
        return f"{len(self._lengths)} pieces, {self.size} windows of {self.pieces.window} steps"

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Tensor]:
        # A bare index comes from samplers that know no epochs: Lightning's, when it overfits batches.
        epoch, index = key if isinstance(key, tuple) else (0, key)
        random = np.random.default_rng((self.seed, epoch, index))
        which = int(np.searchsorted(self._ends, random.integers(self._ends[-1]), side="right"))
        start = int(random.integers(self._lengths[which] - self.pieces.window + 1))
        return self.pieces.item(which, start, self._shift(which, start, random))

    def _shift(self, which: int, start: int, random: np.random.Generator) -> int:
        """Draw a transposition in semitones that keeps all notes on the canvas."""
        if not self.transpose:
            return 0
        sounding = np.flatnonzero(self.pieces.symbols(which, start).any(axis=1))
        if not len(sounding):
            return 0
        lowest, highest = int(sounding[0]), int(sounding[-1])
        down, up = min(self.transpose, lowest), min(self.transpose, self.pieces.rows - 1 - highest)
        return int(random.integers(-down, up + 1))


class ConsecutiveWindows(Dataset):
    """Windows side by side, for validation and test: piece after piece, from step 0; a shorter rest is left out.

    Args:
        pieces: what to cut.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        counts = pieces.lengths // pieces.window
        self._which = np.repeat(np.arange(len(counts)), counts)
        self._first = np.cumsum(counts) - counts  # number of the first window of each piece

    def __len__(self) -> int:
        return len(self._which)

    def fingerprint(self) -> str:
        """Return text that differs wherever a window does."""
        return self.pieces.fingerprint()

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        which = int(self._which[index])
        return self.pieces.item(which, (index - int(self._first[which])) * self.pieces.window)
