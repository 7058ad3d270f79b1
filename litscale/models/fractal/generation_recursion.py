"""The recursion of generation: a level visits its patches, and the levels below fill each of them.

An AR level visits its patches one after the other, a MAR level in masked steps. All noise is keyed by cell, so that a
sample does not depend on when and beside what its cells are drawn. Where a step draws more than it keeps, the step is
also part of the key: what was not kept is later drawn with other noise.

Dimensions: R rows of a level, r of them that are filled now, N patches of a row in raster order, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from litscale.models.fractal.ar import AR, ARRows
from litscale.models.fractal.canvas import grid_of, patchify, scan_order, scan_places, unpatchify
from litscale.models.fractal.drawing import Canvases, Drawing, Scale
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.guidance import scheduled
from litscale.models.fractal.jacobi import ParallelCanvases, goes_on
from litscale.models.fractal.mar import MAR, MARSteps
from litscale.models.fractal.masking import generation_order, generation_queue, masking_schedule, renewed_patches
from litscale.models.fractal.options import per_level
from litscale.models.fractal.turns import Turns

OnStep = Callable[[Tensor, Tensor], None]
NOISE_AT_ONCE = 16  # patches of a row, so that few operators draw it and little memory holds it


@dataclass(frozen=True)
class Draft:
    """A smaller network that guesses the patches of the first level.

    Attributes:
        drawing: how it draws symbols: with the noise of the network that it guesses for.
        conditions: conditions of its first level, ``[B, K, D]`` or ``[2 B, K, D]``.
    """

    drawing: Drawing
    conditions: Tensor

    @property
    def generator(self) -> AR:
        """The generator of its first level."""
        generator = self.drawing.model.levels[0].generator
        assert isinstance(generator, AR)
        return generator


@dataclass(frozen=True)
class Recursion:
    """Fills canvases of any level by the levels below.

    Args:
        drawing: how symbols are drawn.
        parallel: the level whose canvases are decoded in parallel; the number of levels for none.
        draft: the network that guesses these canvases, if they are those of level 1; None guesses from the patch to
            the left.
    """

    drawing: Drawing
    parallel: int
    draft: Draft | None = None

    def fill(self, depth: int, work: Canvases, on_step: OnStep | None = None) -> tuple[Tensor, Tensor | None]:
        """Fill the unknown cells of one level's canvases.

        Args:
            depth: the level; the number of levels means the leaf.
            work: the canvases.
            on_step: called after each step with canvases ``[R, C, H, W]`` and the mask of their finished cells.

        Returns:
            Canvases uint8 ``[R, C, H, W]`` and, where they are needed, the log-probabilities of what was drawn, float32
            ``[R]``.
        """
        model, drawing = self.drawing.model, self.drawing
        # 1. at the end of the recursion a canvas is a cell, whose channels the leaf predicts
        if depth == len(model.levels):
            noise = drawing.noise(work.keys.flatten(), depth) if work.noise is None else work.noise
            given = (None, None) if work.known is None else (work.symbols.flatten(1).long(), work.known.flatten(1))
            symbols, log_prob = drawing.draw_cells(model.leaf, work.conditions, work.cfg, noise, *given)
            return symbols.to(torch.uint8).reshape_as(work.symbols), log_prob
        # 2. canvases whose levels are all AR may be guessed and corrected as a whole
        if depth == self.parallel:
            return ParallelCanvases(drawing, depth, len(work.symbols), work.symbols.device).fill(work)
        # 3. otherwise they are cut into patches, which the levels below fill
        patches = _Patches(self, depth, work, on_step)
        generator = model.levels[depth].generator
        if isinstance(generator, MAR):
            patches.in_masked_steps(generator)
        elif depth + 1 == self.parallel < len(model.levels):
            patches.at_own_pace(generator)
        else:
            patches.in_scan_order(generator)
        return unpatchify(patches.patches, patches.grid), patches.log_prob


class _Patches:
    """The canvases of one level, cut into patches, while they are being filled; arguments as in `Recursion.fill`.

    Attributes:
        patches: uint8 ``[R, N, C, h, w]``.
        log_prob: log-probability of all that was drawn so far, float32 ``[R]``, if it is needed.
    """

    def __init__(self, recursion: Recursion, depth: int, work: Canvases, on_step: OnStep | None) -> None:
        drawing, size = recursion.drawing, (work.symbols.shape[2], work.symbols.shape[3])
        level = drawing.model.levels[depth]
        self.recursion, self.drawing, self.depth, self.work, self.on_step = recursion, drawing, depth, work, on_step
        self.grid = grid_of(size, level.patch)
        self.patches = patchify(work.symbols, level.patch).clone()
        self.keys = patchify(work.keys, level.patch)  # [R, N, 1, h, w]
        self.known = None if work.known is None else patchify(work.known, level.patch)
        self.unknown = None if self.known is None else ~self.known.flatten(2).all(2)  # [R, N]
        self.guide = self.log_prob = None
        if level.guide_head is not None:
            # the guiding value comes first, and all patches have it as a condition
            noise = drawing.noise(work.keys[:, 0, 0, 0], depth)
            value, self.log_prob = drawing.draw_cells(level.guide_head, work.conditions, work.cfg, noise)
            self.guide = work.twice(drawing.model.features.guide_features(value, size[0] * size[1]))
        self.before = drawing.model.preceding.below(work.before, level.patch, self.grid)
        self.local = self._local(drawing.model)
        if drawing.scored and self.log_prob is None:
            self.log_prob = torch.zeros(len(self.patches), device=self.patches.device, dtype=torch.float32)

    def in_scan_order(self, generator: AR) -> None:
        """Fill AR patches one after the other in all rows; patches known in all rows only serve as context."""
        order = scan_places(self.grid, generator.config.scan)
        needed = [True] * len(order) if self.unknown is None else self.unknown.any(0)[order].tolist()
        # views of each patch, so that an index costs nothing
        patches, keys = self.patches.unbind(1), self.keys.unbind(1)
        known = None if self.known is None else self.known.unbind(1)
        stepper = self.drawing.stepper(generator, self.work.conditions, self.grid, self.guide, self.local)
        noise: list[Tensor] = []
        for s, index in enumerate(order):
            if needed[s]:
                # 1. the condition of the patch is what comes before it
                handed = stepper.condition()
                # 2. the levels below fill it where it is unknown
                if self.depth + 1 == len(self.drawing.model.levels):
                    noise = noise or self._noise([i for i, fill in zip(order[s:], needed[s:], strict=True) if fill])
                below = Canvases(
                    symbols=patches[index],
                    known=None if known is None else known[index],
                    keys=keys[index],
                    conditions=handed,
                    cfg=self._scale((s + 1) / len(order)),
                    noise=noise.pop(0) if noise else None,
                    before=self._before_all(index),
                )
                filled, log_prob = self.recursion.fill(self.depth + 1, below)
                patches[index].copy_(filled)
                if self.log_prob is not None and log_prob is not None:
                    # where all is known, guiding values were drawn for nothing
                    self.log_prob += log_prob if self.unknown is None else log_prob * self.unknown[:, index]
            # 3. it is context of the patches after it
            if s + 1 < len(order):
                stepper.feed(self.work.twice(self.drawing.model.features(patches[index]).flatten(1)))
            if self.on_step is not None and needed[s]:
                self._show_places(order[: s + 1])

    def _noise(self, indices: list[int]) -> list[Tensor]:
        """Draw the noise of the first of these cells (raster indices), float32 ``[R, C, A]`` each; empty if greedy."""
        keys = self.keys[:, indices[:NOISE_AT_ONCE]].flatten(1).t().contiguous()  # cell by cell in memory
        noise = self.drawing.noise(keys, self.depth + 1)
        return [] if noise is None else list(noise.unbind(0))

    def at_own_pace(self, generator: AR) -> None:
        """Fill AR patches that are decoded in parallel: a row moves on as soon as its patch has settled.

        A row that has settled waits until at least half of the unfinished rows wait, because reading the patches of a
        few rows takes nearly as long as reading those of many.
        """
        order = scan_places(self.grid, generator.config.scan)
        rows, number, device = len(self.patches), len(order), self.patches.device
        scan = torch.tensor(order, device=device)
        # 1. the places in scan order that each row has to fill
        unknown = [[True] * number] * rows if self.unknown is None else self.unknown[:, scan].tolist()
        turns, shown = Turns(unknown), 0
        # 2. the network, and the draft where there is one, read at once what comes before the first of them
        sequences = [ARRows(generator, self.work.conditions, self.grid, self.guide, self.local)]
        below = ParallelCanvases(self.drawing, self.depth + 1, rows, device)
        draft = self.recursion.draft
        if draft is not None:
            local = self._local(draft.drawing.model)
            sequences.append(ARRows(draft.generator, draft.conditions, self.grid, None, local))
            drafts = ParallelCanvases(draft.drawing, self.depth + 1, rows, device)
        first = [turns.place(r) % number for r in range(rows)]  # rows without any read nothing
        features = self._features(self.patches[:, scan[: max(first)]])
        starting = turns.active(range(rows))
        chosen = self.work.twins(torch.tensor(starting, dtype=torch.long, device=device))
        handed = [of_one.start(features, first * self.work.copies)[chosen] for of_one in sequences]
        active: list[int] = []
        waiting: list[int] = []
        while active or starting:
            # 3. rows whose turn has come guess their next patch
            if starting:
                row = torch.tensor(starting, device=device)
                place = torch.tensor([turns.place(r) for r in starting], device=device)
                work = self._below(row, scan[place], handed[0], (place + 1) / number)
                if draft is not None:
                    before = self._before(draft.drawing.model, row, scan[place])
                    guess = drafts.fill(replace(work, conditions=handed[1], before=before), starting)[0]
                    work = replace(work, symbols=guess)
                below.begin(None if len(starting) == rows else row, work)
                active, starting = sorted(active + starting), []
            # 4. one pass over the patches of all rows
            settled = below.step(active)
            if not settled:
                continue
            # 5. what has settled is kept, and shown as far as the slowest row has come
            row = torch.tensor(settled, device=device)
            self._keep(row, scan[[turns.place(r) for r in settled]], *below.result(row))
            turns.advance(settled)
            if self.on_step is not None:
                for s in turns.needed:
                    if shown <= s < turns.reached:
                        self._show_places(order[: s + 1])
                shown = turns.reached
            # 6. with what is known behind it, it is context of the row's next patch, for half of the rows at once
            active = sorted(set(active).difference(settled))
            waiting += turns.active(settled)
            if waiting and len(waiting) >= len(active):
                starting, waiting = sorted(waiting), []
                handed = self._read(sequences, scan, starting, turns)

    def _read(self, sequences: list[ARRows], scan: Tensor, rows: list[int], turns: Turns) -> list[Tensor]:
        """Feed the patch that each row has just filled, and the known ones after it; return the next conditions."""
        held = [turns.last(r) for r in rows]
        counts = [turns.place(r) - place for r, place in zip(rows, held, strict=True)]
        row = torch.tensor(rows, device=scan.device)
        place = torch.tensor(held, device=scan.device)[:, None] + torch.arange(max(counts), device=scan.device)
        features = self._features(self.patches[row[:, None], scan[place.clamp(max=len(scan) - 1)]])
        chosen = None if len(rows) == len(self.patches) else self.work.twins(row)
        return [
            of_one.feed(chosen, features, held * self.work.copies, counts * self.work.copies) for of_one in sequences
        ]

    def in_masked_steps(self, generator: MAR) -> None:
        """Fill MAR patches in steps; a schedule says how many stay hidden after each step."""
        model, options = self.drawing.model, self.drawing.options
        rows, number = self.patches.shape[:2]
        device = self.patches.device
        # 1. how many patches stay hidden after each step, and the order in which they are generated
        unknown = torch.ones(rows, number, dtype=torch.bool, device=device) if self.unknown is None else self.unknown
        partial = torch.zeros_like(unknown) if self.known is None else unknown & self.known.flatten(2).any(2)
        counts = [number] * rows if self.unknown is None else unknown.sum(1).tolist()
        iterations = per_level("iterations", options.iterations, len(model.levels))[self.depth]
        kind = per_level("schedule", options.schedule, len(model.levels))[self.depth]
        period = per_level("token_cache", options.token_cache, len(model.levels))[self.depth]
        schedule = masking_schedule(counts, iterations, kind)
        keys = self.drawing.order_keys(self.keys[:, :, 0, 0, 0], self.depth)
        scan = scan_order(self.grid, generator.config.scan, device)
        queue = generation_queue(unknown, partial, generation_order(options.order, scan, keys))
        hidden = unknown.clone()
        steps = MARSteps(generator, self.work.conditions, self.grid, self.guide, self.local, cached=period > 1)
        for k in range(1, len(schedule)):
            # 2. this step draws its patches, or more of them, of which the surest are kept
            revealed = schedule[k - 1] - schedule[k]
            drawn = revealed
            if self.drawing.scored:
                oversampling = min(options.confidence_oversampling, number)  # that many are all
                drawn = (revealed * oversampling).ceil().long().minimum(schedule[k - 1])
            # 3. conditions of all patches, from those that are visible
            renewed = renewed_patches(queue, schedule, k, drawn) if (k - 1) % period else None
            handed = self._conditions(steps, hidden, renewed)
            # 4. the levels below fill the patches
            row, place = _ragged(drawn, device)
            place = place + (schedule[0] - schedule[k - 1]).to(device)[row]  # behind what is done
            index = queue[row, place]
            # FractalGen counts at least one patch as still hidden, so its last step is not at full scale
            progress = ((number - schedule[k].clamp(min=1)) / number).to(device)[row]
            work = self._below(row, index, handed[self.work.twins(row), index.repeat(self.work.copies)], progress)
            if self.drawing.scored:
                work = replace(work, keys=self.drawing.step_keys(work.keys, self.depth, k))
            filled, log_prob = self.recursion.fill(self.depth + 1, work)
            if log_prob is not None:
                surest = self._by_sureness(row, index, log_prob, drawn)
                queue[row, place] = index[surest]  # what is not kept comes next
                kept_row, kept_place = _ragged(revealed, device)
                chosen = surest[(drawn.cumsum(0) - drawn).to(device)[kept_row] + kept_place]
                row, index, filled, log_prob = row[chosen], index[chosen], filled[chosen], log_prob[chosen]
            # 5. reveal them
            self._keep(row, index, filled, log_prob)
            hidden[row, index] = False
            if self.on_step is not None:
                self._show(~hidden)

    def _conditions(self, steps: MARSteps, hidden: Tensor, index: Tensor | None) -> Tensor:
        """Compute the conditions of all patches while those of the mask ``hidden``, bool ``[R, N]``, are hidden.

        ``index`` is as in :meth:`MARSteps.conditions`.
        """
        patches = self.patches
        if index is not None:
            row, at = torch.arange(len(index), device=index.device)[:, None], index.clamp(max=hidden.shape[1] - 1)
            patches, hidden, index = patches[row, at], hidden[row, at], self.work.twice(index)
        return steps.conditions(self._features(patches), self.work.twice(hidden), index)

    def _by_sureness(self, row: Tensor, index: Tensor, log_prob: Tensor, counts: Tensor) -> Tensor:
        """Return the numbers of the drawn patches (``counts`` in each row), sorted within their row, the surest first.

        The surest are those of the highest log-probability per drawn cell.
        """
        known = None if self.known is None else self.known[row, index]
        cells = log_prob.new_tensor(self.patches[0, 0].numel()) if known is None else (~known).flatten(1).sum(1)
        inside = _ragged(counts, row.device)[1]
        score = log_prob.new_full((len(counts), int(counts.max())), float("-inf"))
        score[row, inside] = log_prob / cells
        number = torch.zeros_like(score, dtype=torch.long)
        number[row, inside] = torch.arange(len(row), device=row.device)
        return number.gather(1, score.argsort(dim=1, descending=True, stable=True))[row, inside]

    def _below(self, row: Tensor, index: Tensor, handed: Tensor, progress: float | Tensor) -> Canvases:
        """Return patches ``index`` of rows ``row``, both int64 ``[r]``, as canvases of the level below.

        Args:
            row: numbers of rows.
            index: raster indices of patches.
            handed: their conditions, ``[r or 2 r, K, D]``.
            progress: share of the patches that are finished when these are, one number or ``[r]``.
        """
        options, cfg = self.drawing.options, self._scale(progress)
        if isinstance(self.work.cfg, Tensor):
            assert isinstance(cfg, Tensor)
            cfg = cfg[row]
        symbols, known = self.patches[row, index], None if self.known is None else self.known[row, index]
        if self.depth + 1 == self.recursion.parallel < len(self.drawing.model.levels):
            # guess from what comes to the left of a patch
            left = self.patches[row, (index - 1).clamp(min=0)]
            first = (index % self.grid[1] == 0)[:, None, None, None]
            guess = left.masked_fill(first, 0)
            if options.guess != "previous":
                guess = goes_on(self.drawing.model.codec, guess)
            symbols = guess if known is None else torch.where(known, symbols, guess)
        before = self._before(self.drawing.model, row, index)
        return Canvases(
            symbols=symbols, known=known, keys=self.keys[row, index], conditions=handed, cfg=cfg, before=before
        )

    def _before(self, model: Fractal, row: Tensor, index: Tensor) -> Tensor | None:
        """Return the preceding columns that a network's lower levels read for patches ``index`` of rows ``row``."""
        if self.depth == 0:
            return model.preceding.of_some(self.patches, self.grid, row, index, model.features)
        return None if self.before is None else self.before[row, index]

    def _before_all(self, index: int) -> Tensor | None:
        """Return the preceding columns that the lower levels read for patch ``index`` of all rows."""
        if self.depth:
            return None if self.before is None else self.before[:, index]
        if not self.drawing.model.preceding.shown:
            return None
        row = torch.arange(len(self.patches), device=self.patches.device)
        return self._before(self.drawing.model, row, torch.full_like(row, index))

    def _local(self, model: Fractal) -> Tensor | None:
        """Return a network's local conditioning of all patches, ``[R or 2 R, N, D]``, or None."""
        local = model.local(self.depth, self.work.symbols, self.before, self.work.start)
        return None if local is None else self.work.twice(local)

    def _scale(self, progress: float | Tensor) -> Scale:
        """Return the guidance scale of the level below.

        ``progress`` is the share of the patches that are finished when those being filled are.
        """
        options = self.drawing.options
        if self.work.cfg is None or self.depth:
            return self.work.cfg
        return scheduled(options.cfg, options.cfg_schedule, progress)

    def _keep(self, row: Tensor, index: Tensor, filled: Tensor, log_prob: Tensor | None) -> None:
        self.patches[row, index] = filled
        if self.log_prob is not None and log_prob is not None:
            self.log_prob.index_add_(0, row, log_prob)

    def _features(self, patches: Tensor) -> Tensor:
        """Return the features ``[R or 2 R, n, P]`` of patches ``[R, n, C, h, w]``."""
        return self.work.twice(self.drawing.model.features.of_patches(patches))

    def _show_places(self, indices: list[int]) -> None:
        """Give ``on_step`` the canvases, in which the patches of these raster indices are finished."""
        done = torch.zeros(self.patches.shape[:2], dtype=torch.bool, device=self.patches.device)
        done[:, indices] = True
        self._show(done)

    def _show(self, done: Tensor) -> None:
        """Give ``on_step`` the canvases, in which the patches of the mask ``done``, bool ``[R, N]``, are finished."""
        cells = done[:, :, None, None, None].expand(-1, -1, *self.patches.shape[2:])
        cells = cells if self.known is None else cells | self.known
        if self.on_step is not None:
            self.on_step(unpatchify(self.patches.masked_fill(~cells, 0), self.grid), unpatchify(cells, self.grid))


def _ragged(counts: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the row of each entry and its place there, for rows of ``counts`` entries, int64 ``[R]`` on the CPU."""
    row = torch.arange(len(counts)).repeat_interleave(counts)
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    return row.to(device), place.to(device)
