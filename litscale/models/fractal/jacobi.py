"""Exact parallel decoding of canvases whose levels are all AR (Jacobi decoding with coupled noise, arXiv 2410.01699).

With keyed noise a symbol is a function of those before it: the argmax of its logits plus its noise. A canvas may
therefore be guessed as a whole, scored in one teacher-forced pass and redrawn. The draw is right up to the first symbol
that changes, and that symbol is right, too, since all before it are. So each pass settles at least one symbol, and what
no longer changes is the very sample of sequential decoding.

Dimensions: R canvases, r of them that are decoded now, S symbols of a canvas, C channels, A alphabet, n canvases of a
lower level in each, K conditions, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.codec import Codec
from litscale.models.fractal.ar import AR
from litscale.models.fractal.canvas import grid_of, patchify, scan_places
from litscale.models.fractal.drawing import Canvases, Drawing
from litscale.models.fractal.fractal import Fractal


def goes_on(codec: Codec, patches: Tensor) -> Tensor:
    """Guess that patches uint8 ``[R, C, h, w]`` go on as they end: notes are held, colours stay."""
    guess = patches[..., -1:].expand_as(patches)
    return torch.where(guess > 0, codec.alphabet - 1, guess) if codec.name == "onset_hold" else guess


@dataclass(frozen=True)
class Part:
    """Symbols of one head in a canvas.

    Attributes:
        depth: the level whose guiding values they are; the number of levels for the cells.
        count: n, how many canvases of that level, or cells, there are in the canvas.
    """

    depth: int
    count: int


class Layout:
    """The symbols of a canvas: guiding values level by level, then the cells, patch by patch in raster order.

    Args:
        model: the network.
        depth: the level of the canvas.
        device: of the tensors.

    Attributes:
        parts: the heads that predict the symbols.
        turn: when each symbol is drawn, int64 ``[S]``, a permutation of 0..S - 1.
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
                self.parts.append(Part(i, count))
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
        """Cells ``[r, c, h, w]`` in the order of the layout, ``[r, h w, c]``."""
        return cells.flatten(2)[:, :, self._raster].transpose(1, 2)

    def to_cells(self, symbols: Tensor) -> Tensor:
        """All symbols int64 ``[r, S]`` -> canvas uint8 ``[r, C, h, w]``."""
        cells = self.split(symbols)[-1][:, self._place]
        return cells.transpose(1, 2).unflatten(2, self.size).to(torch.uint8)

    def split(self, symbols: Tensor) -> list[Tensor]:
        """All symbols ``[r, S]`` by part, ``[r, n, C]`` each."""
        parts = symbols.split([part.count * self._channels for part in self.parts], dim=1)
        return [part.unflatten(1, (-1, self._channels)) for part in parts]


class ParallelCanvases:
    """Canvases of a level, each of which is guessed, scored and redrawn until it is settled.

    Args:
        drawing: how symbols are drawn.
        depth: the level, which is AR, as are all below it.
        rows: R.
        device: of the canvases.
    """

    def __init__(self, drawing: Drawing, depth: int, rows: int, device: torch.device) -> None:
        self.drawing, self.depth, self.rows = drawing, depth, rows
        self.layout = Layout(drawing.model, depth, device)
        self._state: dict[str, Tensor] = {}

    def fill(self, work: Canvases, numbers: list[int] | None = None) -> tuple[Tensor, Tensor | None]:
        """Fill canvases of these numbers among the R, of all by default; see :meth:`begin` and :meth:`result`."""
        active = list(range(self.rows)) if numbers is None else numbers
        rows = None if len(active) == self.rows else torch.tensor(active, device=self.layout.turn.device)
        self.begin(rows, work)
        while active:
            settled = set(self.step(active))
            active = [row for row in active if row not in settled]
        return self.result(rows)

    def begin(self, rows: Tensor | None, work: Canvases) -> None:
        """Begin with new canvases.

        Args:
            rows: which of the R, int64 ``[r]``; None for all.
            work: the canvases; symbols that are not known are a guess.
        """
        layout = self.layout
        state: dict[str, Tensor | None] = {}
        # 1. the noise of every symbol; guiding values are keyed by the first cell of their canvas
        keys = layout.of_cells(work.keys)[:, :, 0]
        for i, part in enumerate(layout.parts):
            state[f"noise_{i}"] = self.drawing.noise(keys.unflatten(1, (part.count, -1))[:, :, 0], part.depth)
        # 2. the guess, and what is known of it
        parts = [*self._guides(work.symbols), layout.of_cells(work.symbols.long())]
        state["symbols"] = torch.cat([part.flatten(1) for part in parts], dim=1)
        if work.known is not None:
            known = layout.of_cells(work.known).flatten(1)
            state["known"] = F.pad(known, (len(layout.turn) - known.shape[1], 0))  # guiding values are always drawn
        # 3. what comes before, and the conditions
        state["before"] = work.before
        state["conditional"], *unconditional = work.conditions.chunk(work.copies)
        if work.cfg is not None:
            state["unconditional"] = unconditional[0]
            cfg = torch.as_tensor(work.cfg, device=keys.device, dtype=torch.float32)
            state["cfg"] = cfg.expand(len(keys)).clone()  # rows of it are written later
        for name, value in state.items():
            if value is not None:
                self._put(name, rows, value)

    def step(self, active: list[int]) -> list[int]:
        """Score and redraw canvases that are not settled yet; returns those that are now.

        Args:
            active: their numbers among the R, ascending.
        """
        rows = None if len(active) == self.rows else torch.tensor(active, device=self.layout.turn.device)
        # 1. the logits of all symbols, each given the guess of those before it
        symbols = self._take("symbols", rows)
        logits = self._scores(rows, symbols)
        # 2. redraw
        perturbed = self._perturbed(rows, logits)
        drawn = torch.cat([part.argmax(-1).flatten(1) for part in perturbed], dim=1)
        if "known" in self._state:
            drawn = torch.where(self._take("known", rows), symbols, drawn)
        self._put("symbols", rows, drawn)
        # 3. all is settled up to the first symbol that changed, and with it
        last = len(self.layout.turn) - 1
        first = torch.where(drawn != symbols, self.layout.turn, last).amin(1)
        settled = [i for i, done in enumerate((first >= last).tolist()) if done]
        if settled:
            self._finish(rows, settled, drawn, logits, perturbed)
        report = self.drawing.report
        report.passes += 1
        report.patch_passes += len(active)
        return [active[i] for i in settled]

    def result(self, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Settled canvases uint8 ``[r, C, h, w]`` and, where they are needed, log-probabilities, float32 ``[r]``."""
        log_prob = self._take("log_prob", rows) if self.drawing.scored else None
        return self.layout.to_cells(self._take("symbols", rows)), log_prob

    def _scores(self, rows: Tensor | None, symbols: Tensor) -> list[Tensor]:
        """Final logits of every symbol given those before it in ``symbols``, ``[r, n, C, A]`` by part."""
        model, layout = self.drawing.model, self.layout
        cfg = self._take("cfg", rows) if "cfg" in self._state else None
        copies, of_part = (1 if cfg is None else 2), iter(layout.split(symbols))
        names = ("conditional", "unconditional")[:copies]
        conditions = torch.cat([self._take(name, rows) for name in names])
        canvas = layout.to_cells(symbols).repeat(copies, 1, 1, 1)
        before = self._take("before", rows).repeat(copies, 1, 1, 1) if "before" in self._state else None
        raw = []
        # the levels read the guess as they read a batch in training, but for guiding values, which are drawn ones
        for depth, level in enumerate(model.levels[self.depth :], self.depth):
            guide = None
            if level.guide_head is not None:
                value = next(of_part).repeat(copies, 1, 1).flatten(0, 1)
                raw.append(level.guide_head.logits(value, conditions))
                guide = model.features.guide_features(value, canvas.shape[2] * canvas.shape[3])
            grid = grid_of((canvas.shape[2], canvas.shape[3]), level.patch)
            patches = patchify(canvas, level.patch)
            features = model.features.of_patches(patches)
            assert isinstance(level.generator, AR)
            before = model.before_below(before, depth, grid)
            local = model.local(depth, canvas, before, None)
            conditions = level.generator(features, conditions, grid, guide, local).flatten(0, 1)
            before = None if before is None else before.flatten(0, 1)
            canvas = patches.flatten(0, 1)
        raw.append(model.leaf.logits(canvas.flatten(1).long(), conditions))
        return [self.drawing.logits(part.unflatten(0, (copies * len(symbols), -1)), cfg) for part in raw]

    def _perturbed(self, rows: Tensor | None, logits: list[Tensor]) -> list[Tensor]:
        """Logits plus noise."""
        if self.drawing.options.greedy:
            return logits
        return [part + self._take(f"noise_{i}", rows) for i, part in enumerate(logits)]

    def _finish(
        self, rows: Tensor | None, settled: list[int], drawn: Tensor, logits: list[Tensor], perturbed: list[Tensor]
    ) -> None:
        """Report and score canvases that have just settled; their logits are those of what was drawn."""
        index = torch.tensor(settled, device=drawn.device)
        known = self._take("known", rows)[index] if "known" in self._state else None
        least, log_prob = [], drawn.new_zeros(len(index), dtype=torch.float32)
        # known symbols lead by infinity, and their log-probability is that of what is certain
        of_part = self.layout.split(drawn if known is None else known)
        for part, noisy, symbols, certain in zip(logits, perturbed, self.layout.split(drawn), of_part, strict=True):
            first, second = noisy[index].topk(2, dim=-1).values.unbind(-1)
            lead = first - second
            least.append((lead if known is None else lead.masked_fill(certain, math.inf)).amin())
            if self.drawing.scored:
                score = part[index].log_softmax(-1).gather(-1, symbols[index][..., None])[..., 0]
                log_prob += (score if known is None else score.masked_fill(certain, 0)).sum((1, 2))
        if self.drawing.scored:
            self._put("log_prob", index if rows is None else rows[index], log_prob)
        self.drawing.report.settled(
            len(index), drawn[index].numel() if known is None else (~known).sum(), torch.stack(least).amin()
        )

    def _guides(self, cells: Tensor) -> list[Tensor]:
        """Guiding values of canvases uint8 ``[r, C, h, w]``, int64 ``[r, n, C]`` for each level that has them."""
        model, canvas, values = self.drawing.model, cells, []
        for level in model.levels[self.depth :]:
            if level.guide_head is not None:
                values.append(model.features.guide(canvas)[0].unflatten(0, (len(cells), -1)))
            canvas = patchify(canvas, level.patch).flatten(0, 1)
        return values

    def _put(self, name: str, rows: Tensor | None, value: Tensor) -> None:
        if rows is None:
            self._state[name] = value
            return
        if name not in self._state:
            self._state[name] = value.new_zeros(self.rows, *value.shape[1:])
        self._state[name][rows] = value

    def _take(self, name: str, rows: Tensor | None) -> Tensor:
        return self._state[name] if rows is None else self._state[name][rows]
