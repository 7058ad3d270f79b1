"""Windows that go through whole pieces for evaluation, so that nearly every step is predicted from a long past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.rolls.windows import Pieces


@dataclass(frozen=True)
class RollEvaluation:
    """How validation and test go through the pieces of a split.

    Args:
        stride: number of steps from one window to the next, for scores of whole pieces: each step counts once, in the
            window in which the most steps precede it, at least the window less a stride unless the piece begins there.
            The stride divides the window, and is at most half of it. null = windows side by side, in which fewer
            steps precede most steps; the end of a piece that fills no window is left out.
    """

    stride: int | None = None

    def check(self, window: int) -> None:
        """Check that the stride fits a window of so many steps.

        Raises:
            ValueError: it does not.
        """
        if self.stride is not None and (self.stride < 1 or window % self.stride or 2 * self.stride > window):
            raise ValueError(
                f"evaluation.stride must divide the window of {window} steps and be at most half of it, not "
                f"{self.stride}; null uses windows side by side"
            )


class WholePieces(Dataset):
    """Windows a stride apart, piece after piece, from step 0 to one that holds the last step.

    Items are those of `Pieces.item`, silent behind the piece's end, and have also ``counted`` bool ``[window]``, the
    steps whose likelihood counts here, and ``side_by_side`` bool ``[]``, whether the window is one of those that lie
    side by side.

    Args:
        pieces: of any length.
        stride: steps; it divides the window.
    """

    def __init__(self, pieces: Pieces, stride: int) -> None:
        self.pieces, self.stride = pieces, stride
        beyond = np.maximum(pieces.lengths - pieces.window, 0)
        counts = 1 - (-beyond // stride)  # the first window, and those that reach further, rounded up
        self._which = np.repeat(np.arange(len(counts)), counts)
        self._number = np.arange(len(self._which)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self._which)

    def fingerprint(self) -> str:
        """Return text that differs wherever a window does."""
        return f"{self.pieces.fingerprint()} stride {self.stride}"

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        which, start = int(self._which[index]), int(self._number[index]) * self.stride
        window, left = self.pieces.window, int(self.pieces.lengths[which]) - start
        step = torch.arange(window)
        counted = (step < left) & (step >= (window - self.stride if start else 0))
        side_by_side = torch.tensor(start % window == 0 and left >= window)
        return self.pieces.item(which, start) | {"counted": counted, "side_by_side": side_by_side}
