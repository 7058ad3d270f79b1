"""How one call draws symbols: options, guidance and noise that is keyed by cell.

Dimensions: R rows, C channels, K conditions, D width, A alphabet, H x W cells of a row. Where guidance is on, the
networks run on 2 R rows: conditional ones first, unconditional ones second.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from litscale.models.fractal.ar import AR, ARStepper, StepTables
from litscale.models.fractal.compiled import StaticTables, compiled_draw
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.generation_options import Generation
from litscale.models.fractal.generation_report import GenerationReport
from litscale.models.fractal.guidance import final_logits
from litscale.models.fractal.head import CategoricalHead, HeadTables, Rules, draw_channels
from litscale.models.keyed import chained, gumbel, numbers

Scale = float | Tensor | None


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """Canvases of one level, which are to be filled.

    Attributes:
        symbols: uint8 ``[R, C, H, W]``, read where ``known``.
        known: bool ``[R, C, H, W]``, or None where no cell of the whole call is known.
        keys: key of each cell's noise, int64 ``[R, 1, H, W]``.
        conditions: ``[R, K, D]``, or with guidance ``[2 R, K, D]``.
        cfg: guidance scale on this level, one for all rows or float32 ``[R]``; None for none.
        noise: noise of the leaf, float32 ``[R, C, A]``, if it was drawn for many cells at once, else None.
        start: on the first level, number of each canvas' first column within its piece, int64 ``[R]``; None for 0.
        before: on the levels below, the preceding columns of the first level's patch, features
            ``[R, F, H + 2 m, n]``, or None.
    """

    symbols: Tensor
    known: Tensor | None
    keys: Tensor
    conditions: Tensor
    cfg: Scale = None
    noise: Tensor | None = None
    start: Tensor | None = None
    before: Tensor | None = None

    @property
    def copies(self) -> int:
        """Number of rows that the networks compute for each row: 2 with guidance, else 1."""
        return 1 if self.cfg is None else 2

    def twice(self, x: Tensor) -> Tensor:
        """Return rows ``[R, ...]`` or, with guidance, two copies of them, one after the other, ``[2 R, ...]``."""
        return x if self.cfg is None else x.repeat(self.copies, *[1] * (x.ndim - 1))

    def twins(self, rows: Tensor) -> Tensor:
        """Return the indices of rows, followed with guidance by those of their unconditional copies."""
        return rows if self.cfg is None else torch.cat([rows, rows + len(self.symbols)])


@dataclass(frozen=True)
class Drawing:
    """Draws the symbols of one call.

    Args:
        model: the network.
        options: how symbols are drawn.
        report: counts what parallel decoding does.
    """

    model: Fractal
    options: Generation
    report: GenerationReport
    _levels: dict[tuple[AR, tuple[int, int]], StepTables] = field(default_factory=dict, init=False)
    _heads: dict[CategoricalHead, HeadTables] = field(default_factory=dict, init=False)

    def stepper(
        self,
        generator: AR,
        conditions: Tensor,
        grid: tuple[int, int],
        guide: Tensor | None,
        local: Tensor | None,
    ) -> ARStepper:
        """Start a sequence; it reuses tables and caches of the last one over such a grid, which must have ended."""
        if (generator, grid) not in self._levels:
            kind = StaticTables if self.options.compile else StepTables
            self._levels[generator, grid] = generator.tables(grid, self.options.use_cache, kind)
        return generator.stepper(conditions, guide, self._levels[generator, grid], generator.upcoming(local, grid))

    @property
    def scored(self) -> bool:
        """Whether log-probabilities are needed, to rank patches."""
        return self.options.order == "confidence"

    def noise(self, keys: Tensor, depth: int) -> Tensor | None:
        """Draw the noise of a level's guiding values, or of cells if ``depth`` is the number of levels.

        Args:
            keys: keys of the cells, or of the first cells of the level's canvases, int64 ``[R, ...]``.
            depth: the level.

        Returns:
            float32 ``[R, ..., C, A]``, or None for greedy drawing.
        """
        if self.options.greedy:
            return None
        levels = self.model.levels
        head = self.model.leaf if depth == len(levels) else levels[depth].guide_head
        assert head is not None
        own = keys if depth == len(levels) else chained(keys, -1 - 2 * depth)
        return gumbel(numbers(own, head.channels), head.codebook.shape[1])

    def order_keys(self, keys: Tensor, depth: int) -> Tensor:
        """Derive sort keys of a level's patches, int64 ``[R, N]``, from the keys of their first cells."""
        return chained(keys, -2 - 2 * depth)

    def step_keys(self, keys: Tensor, depth: int, step: int) -> Tensor:
        """Derive keys for one step (from 1 on) of a MAR level, which may draw the same cells again in a later one."""
        return chained(keys, step * len(self.model.levels) + depth)

    def logits(self, logits: Tensor, cfg: Scale) -> Tensor:
        """Turn a network's logits ``[R, ..., A]`` or ``[2 R, ..., A]`` into those to draw from, ``[R, ..., A]``."""
        options = self.options
        return final_logits(logits, options.temperature, cfg, options.filter_threshold, options.min_p)

    def draw_cells(
        self,
        head: CategoricalHead,
        conditions: Tensor,
        cfg: Scale,
        noise: Tensor | None,
        symbols: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Draw the channels of cells, or of guiding values, one after the other.

        Args:
            head: predicts them.
            conditions: ``[R, K, D]`` or ``[2 R, K, D]``.
            cfg: guidance scale, None for none.
            noise: Gumbel noise ``[R, C, A]``; None takes the most probable symbols.
            symbols: int64 ``[R, C]``, read where ``known``.
            known: bool ``[R, C]``, channels that keep their symbol.

        Returns:
            Symbols int64 ``[R, C]`` and, where they are needed, the log-probabilities of those drawn, float32 ``[R]``.
        """
        options = self.options
        rules = Rules(options.temperature, options.filter_threshold, options.min_p, self.scored)
        given = (noise, cfg, symbols, known, rules)
        # in the precision in which `CategoricalHead.logits` scores them
        with torch.autocast(conditions.device.type, enabled=False):
            conditions = conditions.to(head.codebook.dtype)
            if options.compile:
                return compiled_draw(head, conditions, *given)
            if head not in self._heads:
                self._heads[head] = head.tables()
            return draw_channels(head.stepper(conditions, self._heads[head]), *given)
