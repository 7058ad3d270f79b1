"""Symbols as the planes that a tokenizer reads, and back: one set of planes for each encoding.

Suffixes: B canvases, C channels of symbols, P planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_IMAGES = ("rgb", "gray")
_CODECS = (*_IMAGES, "binary", "velocity", "onset_hold")


@dataclass(frozen=True)
class Planes:
    """Which planes stand for a canvas of symbols; their values are in [-1, 1].

    - ``rgb``, ``gray``: a plane for each channel, 0 as -1 and 255 as 1.
    - ``binary``: a plane, -1 for silence and 1 for what sounds.
    - ``velocity``: a plane, -1 for silence, else the bin over the number of bins, so that soft notes are far from
      silence.
    - ``onset_hold``: where notes start, as for ``velocity``; and a plane of 1 where a note goes on, -1 elsewhere.

    Args:
        codec: one of these names.
        velocity_bins: velocity bins of ``velocity`` and ``onset_hold``, 1..127.

    Raises:
        ValueError: unknown name, or bins out of range.
    """

    codec: str
    velocity_bins: int = 127

    def __post_init__(self) -> None:
        if self.codec not in _CODECS:
            raise ValueError(f"codec must be one of {', '.join(_CODECS)}, not {self.codec!r}")
        if not 1 <= self.velocity_bins <= 127:
            raise ValueError(f"velocity_bins must be in 1..127, not {self.velocity_bins}")

    @property
    def is_image(self) -> bool:
        """Whether the symbols are pixels."""
        return self.codec in _IMAGES

    @property
    def channels(self) -> int:
        """Channels C of the canvas."""
        return 3 if self.codec == "rgb" else 1

    @property
    def count(self) -> int:
        """Number of planes P."""
        return 2 if self.codec == "onset_hold" else self.channels

    @property
    def alphabet(self) -> int:
        """Number of symbols."""
        if self.is_image:
            return 256
        return {"binary": 2, "velocity": self._bins + 1, "onset_hold": self._bins + 2}[self.codec]

    @property
    def _bins(self) -> int:
        return 1 if self.codec == "binary" else self.velocity_bins

    def to_planes(self, symbols: Tensor) -> Tensor:
        """Symbols, integers ``[B, C, H, W]``, to float32 ``[B, P, H, W]``."""
        values = symbols.float()
        if self.is_image:
            return values / 127.5 - 1
        hold = values > self._bins
        struck = torch.where((values > 0) & ~hold, values / self._bins, -1)
        return torch.cat([struck, hold.float() * 2 - 1], dim=1) if self.codec == "onset_hold" else struck

    def to_symbols(self, planes: Tensor) -> Tensor:
        """Planes ``[B, P, H, W]``, of any values, to the nearest symbols, uint8 ``[B, C, H, W]``."""
        planes = planes.float().clamp(-1, 1)
        if self.is_image:
            return planes.add(1).mul(127.5).round().byte()
        struck = planes[:, :1]
        bins = (struck * self._bins).round().clamp(1, self._bins)
        symbols = bins.masked_fill(struck < (1 / self._bins - 1) / 2, 0)
        if self.codec == "onset_hold":
            hold = planes[:, 1:]
            symbols = symbols.masked_fill((hold > 0) & (hold >= struck), self._bins + 1)
        return symbols.byte()
