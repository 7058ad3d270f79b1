"""Where the symbols of a canvas lie that is decoded as a whole, and when each of them is drawn.

Dimensions: r canvases, S symbols of each, N patches of a canvas, n canvases of a lower level in each, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from litscale.models.fractal.canvas import grid_of, patchify, scan_places
from litscale.models.fractal.fractal import Fractal


@dataclass(frozen=True)
class Part:
    """The symbols of a canvas that one head predicts.

    Attributes:
        depth: the level whose guiding values they are; the number of levels for the cells.
        patches: N, or 1 for guiding values of the canvas itself.
        count: n, how many canvases of that level, or cells, there are in each patch.
    """

    depth: int
    patches: int
    count: int


class Layout:
    """The symbols of a canvas: guiding values level by level, then the cells, each patch by patch in raster order.

    Args:
        model: the network.
        depth: the level of the canvas.
        device: device of the tensors.

    Attributes:
        parts: the heads that predict the symbols.
        turn: when each symbol is drawn, int64 ``[S]``, a permutation of 0..S - 1.
        scan: raster indices of the N patches, in the order in which they are drawn.
        ends: the turn of the last symbol of each, in that order.
    """

    def __init__(self, model: Fractal, depth: int, device: torch.device) -> None:
        # 1. the heads, and the order in which each level's patches are visited
        self.parts: list[Part] = []
        self.size, self._channels, self._depth = model.sizes[depth], model.codec.channels, depth
        self._scans: list[list[int]] = []
        starts: dict[int, int] = {}
        inside = torch.arange(self.size[0] * self.size[1]).reshape(1, 1, *self.size)
        first, count = 0, 1
        for i in range(depth, len(model.levels) + 1):
            level = None if i == len(model.levels) else model.levels[i]
            head = model.leaf if level is None else level.guide_head
            if head is not None:
                patches = len(self._scans[0]) if self._scans else 1
                self.parts.append(Part(i, patches, count // patches))
                starts[i] = first
                first += count * self._channels
            if level is not None:
                scan = scan_places(grid_of(model.sizes[i], level.patch), level.generator.config.scan)
                self._scans.append(scan)
                inside = patchify(inside, level.patch).flatten(0, 1)
                count *= len(scan)
        # 2. where the cells lie, and when each symbol is drawn
        self._raster = inside.flatten().to(device)  # of each cell of the layout
        self._place = self._raster.argsort()
        drawn: list[int] = []
        self._visit(0, 0, starts, drawn)
        self.turn = torch.tensor(drawn).argsort().to(device)
        # 3. the canvas' own guiding value is drawn first, then each patch as a whole, which have equally many symbols
        self.scan = self._scans[0]
        own = self._channels if self._depth in starts else 0
        each = (len(drawn) - own) // len(self.scan)
        self.ends = [own + each * (s + 1) - 1 for s in range(len(self.scan))]

    def _visit(self, below: int, index: int, starts: dict[int, int], drawn: list[int]) -> None:
        """Append the symbols of canvas ``index``, ``below`` levels down, in the order in which they are drawn."""
        if self._depth + below in starts:
            first = starts[self._depth + below] + index * self._channels
            drawn += range(first, first + self._channels)
        if below < len(self._scans):
            scan = self._scans[below]
            for patch in scan:
                self._visit(below + 1, index * len(scan) + patch, starts, drawn)

    def of_cells(self, cells: Tensor) -> Tensor:
        """Flatten cells ``[r, c, h, w]`` in the order of the layout, ``[r, h w, c]``."""
        return cells.flatten(2)[:, :, self._raster].transpose(1, 2)

    def to_cells(self, symbols: Tensor) -> Tensor:
        """Turn all symbols, int64 ``[r, S]``, into canvases, uint8 ``[r, C, h, w]``."""
        cells = self.split(symbols)[-1].flatten(1, 2)[:, self._place]
        return cells.transpose(1, 2).unflatten(2, self.size).to(torch.uint8)

    def split(self, symbols: Tensor) -> list[Tensor]:
        """Return views of all symbols ``[r, S]`` by part, ``[r, N, n, C]`` each."""
        views = symbols.split([part.patches * part.count * self._channels for part in self.parts], dim=1)
        return [
            view.unflatten(1, (part.patches, part.count, self._channels))
            for view, part in zip(views, self.parts, strict=True)
        ]
