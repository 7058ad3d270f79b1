"""Exact parallel decoding of canvases whose levels are all AR (Jacobi decoding with coupled noise, arXiv 2410.01699).

With keyed noise a symbol is a function of those before it: the argmax of its logits plus its noise. A canvas may
therefore be guessed as a whole, scored in one teacher-forced pass and redrawn. The draw is right up to the first symbol
that changes, and that symbol is right, too, since all before it are. So each pass settles at least one symbol, and what
no longer changes is the very sample of sequential decoding.

A canvas is cut into patches, which the level below fills one after the other. Those that have settled are context of
the others, and are neither scored nor drawn again.

Dimensions: R canvases, r of them that are decoded now, S symbols of a canvas, N patches of a canvas, m open patches of
all canvases, n canvases of a lower level in each, C channels, A alphabet, K conditions, D width.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import torch
from torch import Tensor

from litscale.models.codec import Codec
from litscale.models.fractal.ar import AR
from litscale.models.fractal.canvas import grid_of, patchify
from litscale.models.fractal.drawing import Canvases, Drawing
from litscale.models.fractal.layout import Layout


def goes_on(codec: Codec, patches: Tensor) -> Tensor:
    """Guess the patches after these, uint8 ``[R, C, h, w]``, from their last columns: notes are held, colours stay."""
    guess = patches[..., -1:].expand_as(patches)
    return torch.where(guess > 0, codec.alphabet - 1, guess) if codec.name == "onset_hold" else guess


@dataclass(frozen=True)
class Open:
    """The open patches, those that have not settled.

    Attributes:
        row: number of each patch's canvas among the r that are decoded now, int64 ``[m]``.
        number: number of its canvas among the R, int64 ``[m]``.
        patch: raster index of each patch, int64 ``[m]``.
    """

    row: Tensor
    number: Tensor
    patch: Tensor


class ParallelCanvases:
    """Canvases of a level, each of which is guessed, scored and redrawn until it has settled.

    Args:
        drawing: how symbols are drawn.
        depth: the level, which is AR, as are all below it.
        rows: R.
        device: device of the canvases.
    """

    def __init__(self, drawing: Drawing, depth: int, rows: int, device: torch.device) -> None:
        self.drawing, self.depth, self.rows = drawing, depth, rows
        self.layout = Layout(drawing.model, depth, device)
        self._state: dict[str, Tensor] = {}
        self._settled = [0] * rows  # patches of each canvas, in scan order

    def fill(self, work: Canvases, numbers: list[int] | None = None) -> tuple[Tensor, Tensor | None]:
        """Fill the canvases of these numbers among the R, by default all; see :meth:`begin` and :meth:`result`."""
        active = list(range(self.rows)) if numbers is None else numbers
        rows = None if len(active) == self.rows else torch.tensor(active, device=self.layout.turn.device)
        self.begin(rows, work)
        while active:
            settled = set(self.step(active))
            active = [row for row in active if row not in settled]
        return self.result(rows)

    def begin(self, rows: Tensor | None, work: Canvases) -> None:
        """Start to decode new canvases.

        Args:
            rows: their numbers among the R, int64 ``[r]``; None for all.
            work: the canvases; symbols that are not known are a guess.
        """
        layout = self.layout
        state: dict[str, Tensor | None] = {}
        # 1. the noise of every symbol; guiding values are keyed by the first cell of their canvas
        keys = layout.of_cells(work.keys)[:, :, 0]
        for i, part in enumerate(layout.parts):
            first = keys.unflatten(1, (part.patches, part.count, -1))[..., 0]
            state[f"noise_{i}"] = self.drawing.noise(first, part.depth)
        # 2. the guess, and what is known of it
        parts = [*self._guides(work.symbols), layout.of_cells(work.symbols.long())]
        state["symbols"] = torch.cat([part.flatten(1) for part in parts], dim=1)
        if work.known is not None:
            known = layout.of_cells(work.known)
            # guiding values of patches in which nothing is left to draw are nobody's context, and stay the guess
            full = [known.unflatten(1, (part.patches * part.count, -1)).flatten(2).all(2) for part in layout.parts[:-1]]
            certain = [of_part.repeat_interleave(known.shape[2], dim=1) for of_part in full]
            state["known"] = torch.cat([*certain, known.flatten(1)], dim=1)
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
        """Score and redraw unsettled canvases once, and return the numbers of those that have settled now.

        Args:
            active: numbers of the unsettled canvases among the R, ascending.
        """
        layout = self.layout
        rows = None if len(active) == self.rows else torch.tensor(active, device=layout.turn.device)
        # 1. the logits of the symbols of all open patches, each given the guess of those before it
        symbols, still = self._take("symbols", rows), self._open(active)
        logits = self._scores(rows, symbols, still)
        # 2. redraw them
        drawn = symbols.clone()
        for i, (view, scored, chosen) in enumerate(zip(layout.split(drawn), logits, self._by_part(still), strict=True)):
            noisy = scored if self.drawing.options.greedy else scored + self._take(f"noise_{i}", rows, chosen)
            if chosen is None:
                view.copy_(noisy.argmax(-1))
            else:
                view[chosen.row, chosen.patch] = noisy.argmax(-1)
            self._put(f"logits_{i}", rows, scored, chosen)
        if "known" in self._state:
            drawn = torch.where(self._take("known", rows), symbols, drawn)
        self._put("symbols", rows, drawn)
        # 3. all is settled up to the first symbol that changed, and with it
        first = torch.where(drawn != symbols, layout.turn, len(layout.turn) - 1).amin(1).tolist()
        for number, turn in zip(active, first, strict=True):
            self._settled[number] = bisect_right(layout.ends, turn)
        settled = [number for number in active if self._settled[number] == len(layout.ends)]
        if settled:
            self._finish(settled)
        report = self.drawing.report
        report.passes += 1
        report.patch_passes += len(active)
        return settled

    def result(self, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return settled canvases, uint8 ``[r, C, h, w]``, and their log-probabilities, float32 ``[r]``, if needed."""
        log_prob = self._take("log_prob", rows) if self.drawing.scored else None
        return self.layout.to_cells(self._take("symbols", rows)), log_prob

    def _open(self, active: list[int]) -> Open | None:
        """Return the open patches of canvases ``active``; None if all are open."""
        if not any(self._settled[number] for number in active):
            return None
        scan = self.layout.scan
        places = [(i, number, patch) for i, number in enumerate(active) for patch in scan[self._settled[number] :]]
        return Open(*torch.tensor(places, device=self.layout.turn.device).unbind(1))

    def _by_part(self, still: Open | None) -> list[Open | None]:
        """Return the open patches of each part; None for all, as for the guiding values of the canvases themselves."""
        return [None if part.depth == self.depth else still for part in self.layout.parts]

    def _scores(self, rows: Tensor | None, symbols: Tensor, still: Open | None) -> list[Tensor]:
        """Compute the final logits of open symbols given those before them in ``symbols``, for each part.

        They are ``[r, N, n, C, A]``, or ``[m, n, C, A]`` if only some patches are open.
        """
        model, by_part = self.drawing.model, self._by_part(still)
        # 1. the conditions, the canvases and their guiding values
        cfg = self._take("cfg", rows) if "cfg" in self._state else None
        copies = 1 if cfg is None else 2
        names = ("conditional", "unconditional")[:copies]
        conditions = torch.cat([self._take(name, rows) for name in names])
        canvas = self.layout.to_cells(symbols).repeat(copies, 1, 1, 1)
        before = self._take("before", rows).repeat(copies, 1, 1, 1) if "before" in self._state else None
        views = zip(self.layout.split(symbols), by_part, strict=True)
        values = [view if chosen is None else view[chosen.row, chosen.patch] for view, chosen in views]
        # 2. the levels read the guess as they read a batch in training, but for guiding values, which are drawn ones
        raw: list[Tensor] = []
        for depth, level in enumerate(model.levels[self.depth :], self.depth):
            guide = None
            if level.guide_head is not None:
                value = values[len(raw)].flatten(0, -2).repeat(copies, 1)
                raw.append(level.guide_head.logits(value, conditions))
                guide = model.features.guide_features(value, canvas.shape[2] * canvas.shape[3])
            grid = grid_of((canvas.shape[2], canvas.shape[3]), level.patch)
            patches = patchify(canvas, level.patch)
            features = model.features.of_patches(patches)
            assert isinstance(level.generator, AR)
            before = model.preceding.below(before, level.patch, grid)
            local = model.local(depth, canvas, before, None)
            handed = level.generator(features, conditions, grid, guide, local)
            if depth > self.depth or still is None:
                conditions, canvas = handed.flatten(0, 1), patches.flatten(0, 1)
                before = None if before is None else before.flatten(0, 1)
            else:  # the levels below see open patches alone
                row = still.row if cfg is None else torch.cat([still.row, still.row + len(symbols)])
                patch = still.patch.repeat(copies)
                conditions, canvas = handed[row, patch], patches[row, patch]
                before = None if before is None else before[row, patch]
        raw.append(model.leaf.logits(canvas.flatten(1).long(), conditions))
        # 3. guidance, with the scale of each canvas
        final = []
        for part, value, chosen in zip(raw, values, by_part, strict=True):
            scale = cfg if cfg is None or chosen is None else cfg[chosen.row]
            final.append(self.drawing.logits(part.unflatten(0, (copies * len(value), *value.shape[1:-1])), scale))
        return final

    def _finish(self, settled: list[int]) -> None:
        """Count the canvases of these numbers, which have just settled, and score them by their last logits."""
        index = torch.tensor(settled, device=self.layout.turn.device)
        drawn = self._state["symbols"][index]
        known = self._state["known"][index] if "known" in self._state else None
        least, log_prob = [], drawn.new_zeros(len(index), dtype=torch.float32)
        # known symbols lead by infinity, and their log-probability is that of what is certain
        of_part = self.layout.split(drawn if known is None else known)
        for i, (symbols, certain) in enumerate(zip(self.layout.split(drawn), of_part, strict=True)):
            logits = self._state[f"logits_{i}"][index]
            noisy = logits if self.drawing.options.greedy else logits + self._state[f"noise_{i}"][index]
            first, second = noisy.topk(2, dim=-1).values.unbind(-1)
            lead = first - second
            least.append((lead if known is None else lead.masked_fill(certain, math.inf)).amin())
            if self.drawing.scored:
                score = logits.log_softmax(-1).gather(-1, symbols[..., None])[..., 0]
                log_prob += (score if known is None else score.masked_fill(certain, 0)).sum((1, 2, 3))
        if self.drawing.scored:
            self._put("log_prob", index, log_prob)
        for number in settled:
            self._settled[number] = 0  # of the next canvas of that number
        self.drawing.report.settled(
            len(index), drawn.numel() if known is None else (~known).sum(), torch.stack(least).amin()
        )

    def _guides(self, cells: Tensor) -> list[Tensor]:
        """Compute the guiding values of canvases uint8 ``[r, C, h, w]``, int64 ``[r, n, C]`` for each guided level."""
        model, canvas, values = self.drawing.model, cells, []
        for level in model.levels[self.depth :]:
            if level.guide_head is not None:
                values.append(model.features.guide(canvas)[0].unflatten(0, (len(cells), -1)))
            canvas = patchify(canvas, level.patch).flatten(0, 1)
        return values

    def _put(self, name: str, rows: Tensor | None, value: Tensor, still: Open | None = None) -> None:
        """Store the state of the canvases ``rows``, None for all, or of the open patches ``still`` if given."""
        if still is not None:
            self._state[name][still.number, still.patch] = value
            return
        if rows is None:
            self._state[name] = value
            return
        if name not in self._state:
            self._state[name] = value.new_zeros(self.rows, *value.shape[1:])
        self._state[name][rows] = value

    def _take(self, name: str, rows: Tensor | None, still: Open | None = None) -> Tensor:
        """Return the state of the canvases ``rows``, None for all, or of the open patches ``still`` if given."""
        state = self._state[name]
        if still is not None:
            return state[still.number, still.patch]
        return state if rows is None else state[rows]
