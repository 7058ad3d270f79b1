"""Sampling down the recursion, with known cells and guidance.

Suffixes: R rows of a level, N patches of a row in raster order, C channels, K conditions, D width. Where guidance is
on, the networks run on 2 R rows: conditional ones first, unconditional ones second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litscale.models.fractal.ar import AR
from litscale.models.fractal.canvas import grid_of, patchify, scan_order, unpatchify
from litscale.models.fractal.guidance import SCHEDULES, scheduled
from litscale.models.fractal.head import DrawOptions
from litscale.models.fractal.mar import MAR
from litscale.models.fractal.masking import ORDERS, cosine_schedule, generation_order, generation_rank
from litscale.models.fractal.options import per_level

if TYPE_CHECKING:
    from litscale.models.fractal.fractal import Fractal

OnStep = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Generation:
    """How samples are drawn, see :meth:`litscale.models.fractal.Fractal.sample`.

    Args:
        iterations: MAR steps, one number for all levels or one per level; AR levels ignore theirs.
        temperature: divides the logits; below 1 is safer.
        cfg: classifier-free guidance scale, 1 for none.
        cfg_schedule: ``linear`` or ``constant``.
        filter_threshold: symbols less probable than this are not pushed up by guidance.
        order: of MAR's patches: ``random``, ``raster`` or ``confidence``.
        use_cache: keep keys and values of AR levels.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    iterations: int | list[int] = 8
    temperature: float = 1.0
    cfg: float = 1.0
    cfg_schedule: str = "linear"
    filter_threshold: float = 1e-4
    order: str = "random"
    use_cache: bool = True

    def __post_init__(self) -> None:
        steps = self.iterations if isinstance(self.iterations, list) else [self.iterations]
        if not steps or min(steps) < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, not {self.temperature}; greedy takes the likeliest symbol")
        if not 0 <= self.cfg < math.inf:
            raise ValueError(f"cfg must not be negative, not {self.cfg}; 1 is without guidance")
        if self.cfg_schedule not in SCHEDULES:
            raise ValueError(f"cfg_schedule must be one of {', '.join(SCHEDULES)}, not {self.cfg_schedule!r}")
        if not 0 <= self.filter_threshold <= 1:
            raise ValueError(f"filter_threshold must be in 0..1, not {self.filter_threshold}")
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {self.order!r}")

    def steps(self, levels: int) -> list[int]:
        """``iterations`` of each level.

        Raises:
            ValueError: there are more or fewer than levels.
        """
        return per_level("iterations", self.iterations, levels)


@dataclass(frozen=True)
class Sampling(Generation):
    """The same with what one call adds.

    Args:
        greedy: take the most probable symbol everywhere.
        generator: source of randomness; torch's global one if none is given.
    """

    greedy: bool = False
    generator: torch.Generator | None = None

    @property
    def draw(self) -> DrawOptions:
        """What the heads need of it."""
        return DrawOptions(self.temperature, self.filter_threshold, self.greedy, self.generator)


def generate(
    model: Fractal,
    depth: int,
    canvas: Tensor,
    known: Tensor,
    conditions: Tensor,
    options: Sampling,
    cfg: float | None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill the unknown cells of one level's canvases.

    Args:
        model: whose levels are used.
        depth: level; the number of levels means the leaf.
        canvas: uint8 ``[R, C, H, W]``.
        known: bool ``[R, C, H, W]``.
        conditions: ``[R, K, D]`` or ``[2 R, K, D]``.
        options: of the whole call.
        cfg: guidance scale on this level, None for none.
        on_step: called after each step.

    Returns:
        Canvases ``[R, C, H, W]`` and the log-probability of what was drawn, float32 ``[R]``.
    """
    if depth == len(model.levels):
        symbols, log_prob = model.leaf.sample(conditions, options.draw, cfg, canvas.flatten(1).long(), known.flatten(1))
        return symbols.to(torch.uint8).reshape_as(canvas), log_prob
    task = _Task(model, depth, canvas, known, conditions, options, cfg, on_step)
    generator = model.levels[depth].generator
    if isinstance(generator, AR):
        task.in_scan_order(generator)
    else:
        task.in_masked_steps(generator)
    return unpatchify(task.patches, task.grid), task.log_prob


@dataclass(eq=False)
class _Task:
    """The canvases of one level while they are being filled, patch by patch; see :func:`generate`."""

    model: Fractal
    depth: int
    canvas: InitVar[Tensor]
    known_cells: InitVar[Tensor]
    conditions: Tensor
    options: Sampling
    cfg: float | None
    on_step: OnStep | None

    def __post_init__(self, canvas: Tensor, known_cells: Tensor) -> None:
        level = self.model.levels[self.depth]
        self.grid = grid_of((canvas.shape[2], canvas.shape[3]), level.patch)
        self.patches = patchify(canvas, level.patch).clone()  # [R, N, C, h, w]
        self.known = patchify(known_cells, level.patch)
        self.unknown = ~self.known.flatten(2).all(2)  # [R, N]
        self.log_prob = torch.zeros(len(canvas), device=canvas.device, dtype=torch.float32)
        self.guide = None
        if level.guide_head is not None:
            value, log_prob = level.guide_head.sample(self.conditions, self.options.draw, self.cfg)
            guide = self.model.features.guide_features(value, canvas.shape[2] * canvas.shape[3])
            self.guide = self._twice(guide)
            self.log_prob += log_prob

    def in_scan_order(self, generator: AR) -> None:
        """AR: one patch after the other; patches that are known in all rows only feed the context."""
        order = generator.order(self.grid, self.patches.device)
        needed = self.unknown.any(0)[order].tolist()
        stepper = generator.stepper(self.conditions, self.grid, self.guide, self.options.use_cache)
        for s, index in enumerate(order.tolist()):
            if needed[s]:
                handed = stepper.condition()
                rows = self.unknown[:, index].nonzero()[:, 0]
                columns = torch.full_like(rows, index)
                filled, log_prob = self._descend(rows, columns, handed[self._pair(rows)], (s + 1) / len(order))
                self.patches[rows, columns] = filled
                self.log_prob[rows] += log_prob
            stepper.feed(self._features(self.patches[:, index : index + 1]))
            if self.on_step is not None and needed[s]:
                done = ~self.unknown
                done[:, order[: s + 1]] = True
                self._report(done)

    def in_masked_steps(self, generator: MAR) -> None:
        """MAR: the cosine schedule says how many patches stay hidden after each step."""
        rows, patches = self.unknown.shape
        device = self.patches.device
        counts = self.unknown.sum(1).tolist()
        schedule = cosine_schedule(counts, self.options.steps(len(self.model.levels))[self.depth]).to(device)
        partial = self.unknown & self.known.flatten(2).any(2)
        scan = scan_order(self.grid, generator.scan, device)
        key = generation_order(self.options.order, rows, scan, device, self.options.generator)
        rank = generation_rank(self.unknown, partial, key)
        hidden = self.unknown.clone()
        for k in range(1, len(schedule)):
            handed = generator(
                self._features(self.patches), self.conditions, self.grid, self.guide, mask=self._twice(hidden)
            )
            confident = self.options.order == "confidence"
            candidates = hidden if confident else hidden & (rank >= schedule[k][:, None])
            row, index = candidates.nonzero(as_tuple=True)
            # FractalGen counts at least one patch as still hidden, so its last step is not at full scale
            progress = (patches - max(int(schedule[k].max()), 1)) / patches
            filled, log_prob = self._descend(row, index, handed[self._pair(row), index.repeat(self._copies)], progress)
            revealed = candidates
            if confident:
                revealed = self._surest(row, index, log_prob, schedule[k - 1] - schedule[k])
            chosen = revealed[row, index]
            self.patches[row[chosen], index[chosen]] = filled[chosen]
            self.log_prob.index_add_(0, row[chosen], log_prob[chosen])
            hidden = hidden & ~revealed
            if self.on_step is not None:
                self._report(~hidden)

    @property
    def _copies(self) -> int:
        return 1 if self.cfg is None else 2

    def _twice(self, x: Tensor) -> Tensor:
        return x.repeat(self._copies, *[1] * (x.ndim - 1))

    def _pair(self, rows: Tensor) -> Tensor:
        """Indices of conditional rows, then of their unconditional twins."""
        return rows if self.cfg is None else torch.cat([rows, rows + len(self.patches)])

    def _features(self, patches: Tensor) -> Tensor:
        """Patches ``[R, n, C, h, w]`` -> features ``[R or 2 R, n, P]``."""
        features = self.model.features(patches.flatten(0, 1)).flatten(1)
        return self._twice(features.unflatten(0, patches.shape[:2]))

    def _descend(self, row: Tensor, index: Tensor, handed: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        cfg = self.cfg
        if cfg is not None and self.depth == 0:
            cfg = scheduled(cfg, self.options.cfg_schedule, progress)
        return generate(
            self.model,
            self.depth + 1,
            self.patches[row, index],
            self.known[row, index],
            handed,
            self.options,
            cfg,
        )

    def _surest(self, row: Tensor, index: Tensor, log_prob: Tensor, number: Tensor) -> Tensor:
        """The ``number[r]`` candidates of each row with the highest log-probability per drawn cell, bool ``[R, N]``."""
        drawn = (~self.known[row, index]).flatten(1).sum(1)
        score = torch.full(self.unknown.shape, float("-inf"), device=log_prob.device, dtype=torch.float32)
        score[row, index] = log_prob / drawn
        return score.argsort(dim=1, descending=True, stable=True).argsort(1) < number[:, None]

    def _report(self, done: Tensor) -> None:
        cells = done[:, :, None, None, None] | self.known
        if self.on_step is not None:
            self.on_step(unpatchify(self.patches, self.grid), unpatchify(cells, self.grid))
