"""Generation down the recursion, from coarse patches to single cells (FractalGen, arXiv 2502.17437).

A level visits its patches one after the other (AR) or in masked steps (MAR), and the levels below fill each of them.

Dimensions: B canvases, R rows of a level, N patches of a row in raster order, C channels, K conditions, D width. Where
guidance is on, the networks run on 2 R rows: conditional ones first, unconditional ones second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.ar import AR
from litscale.models.fractal.canvas import grid_of, patchify, scan_order, unpatchify
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.guidance import SCHEDULES, draw_symbols, scheduled
from litscale.models.fractal.head import CategoricalHead
from litscale.models.fractal.mar import MAR
from litscale.models.fractal.masking import ORDERS, cosine_schedule, generation_order, generation_rank
from litscale.models.fractal.options import per_level
from litscale.models.modes import evaluating

OnStep = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Generation:
    """How samples are drawn.

    Args:
        iterations: MAR steps, one number for all levels or one per level; AR levels ignore theirs. FractalGen takes 64
            on the first level and 16 below.
        temperature: divides the logits; below 1 is safer. FractalGen's multiplies them (1.02 to 1.1).
        cfg: scale of classifier-free guidance; 1 is off, and models without classes need 1. FractalGen publishes 11
            (FractalAR, 64 px), 6.5 (FractalMAR, 64 px), and 29, 21 and 19 (Base, Large and Huge, 256 px).
        cfg_schedule: ``linear`` (rising from 1 over the first level's steps, as published) or ``constant``.
        filter_threshold: symbols less probable than this are not pushed up by guidance.
        order: of MAR's patches: ``random``, ``raster`` or ``confidence`` (the surest first).
        use_cache: keep keys and values of AR levels; off recomputes them, with the same result.
        greedy: take the most probable symbol everywhere.

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
    greedy: bool = False

    def __post_init__(self) -> None:
        steps = self.iterations if isinstance(self.iterations, list) else [self.iterations]
        if not all(isinstance(count, int) for count in steps):
            raise ValueError(f"iterations must be whole numbers, not {self.iterations}")
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

    def check(self, levels: int, num_classes: int) -> None:
        """Check that the options fit a network with so many levels and classes.

        Raises:
            ValueError: ``iterations`` of another number of levels, or guidance without classes.
        """
        per_level("iterations", self.iterations, levels)
        if self.cfg != 1 and not num_classes:
            raise ValueError(f"cfg {self.cfg} needs a network with classes: set num_classes, or cfg to 1")


@torch.no_grad()
def generate(
    model: Fractal,
    label: Tensor | None = None,
    options: Generation = Generation(),
    *,
    batch_size: int = 1,
    canvas: Tensor | None = None,
    known: Tensor | None = None,
    length: int | None = None,
    window: int | None = None,
    seed: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Generate canvases of any width.

    A width that is no multiple of the first level's patch is padded for the model and cut again. A canvas wider than
    the window is filled from left to right, window by window, each with what is already there as known context.

    Args:
        model: the network, whose dropout is off meanwhile.
        label: int64 ``[B]``, -1 or none for no class.
        options: how symbols are drawn, and in which order.
        batch_size: B, where neither label nor canvas gives it.
        canvas: uint8 ``[B, C, H, W]``, whose known cells are kept.
        known: bool ``[B, C, H, W]`` (or ``[B, 1, H, W]``), True for cells that are given. They are context from the
            first step wherever the levels can see them: an AR level sees what comes earlier in its scan order, a MAR
            level sees all.
        length: W where no canvas is given; the model's own by default.
        window: columns that are generated at once, the model's own number by default; a first level with positions
            ``rope`` takes more.
        seed: of the first window, to which each further one adds 1; makes the result repeatable. Without it torch's
            global generator decides.
        on_step: called after each step of the first level with the whole canvas so far and the bool mask of its
            finished cells, both ``[B, C, H, W]``.

    Returns:
        uint8 ``[B, C, H, W]`` on the model's device.

    Raises:
        ValueError: options or shapes that do not fit the model.
    """
    # 1. read the request: the canvas, and which of its cells are known
    options.check(len(model.levels), model.num_classes)
    device, (height, width), patch = model.no_class.device, model.sizes[0], model.levels[0].patch[1]
    if canvas is None:
        if known is not None:
            raise ValueError("known needs the canvas whose cells are known")
        if length is not None and length < 1:
            raise ValueError(f"length must be at least 1, not {length}")
        rows = batch_size if label is None else len(label)
        canvas = torch.zeros(rows, model.codec.channels, height, length or width, dtype=torch.uint8)
    length = canvas.shape[-1]
    known = torch.zeros_like(canvas, dtype=torch.bool) if known is None else known.expand_as(canvas)
    _check_request(model, label, canvas, known, window)
    canvas, known = (F.pad(cells.to(device), (0, -length % patch)).clone() for cells in (canvas, known))
    canvas[~known] = 0  # what a caller left there does not matter

    with evaluating(model):
        for number, part in enumerate(_windows(known, length, window or width, patch)):
            # 2. the conditions of the first level: classes, and "no class" where guidance is on
            conditions = model.root(canvas[..., part], label)
            if options.cfg != 1:
                conditions = torch.cat([conditions, model.root(canvas[..., part], None)])
            noise = None if seed is None else torch.Generator(device).manual_seed(seed + number)
            # 3. fill the window down the recursion
            recursion = Recursion(model, options, noise)
            show = None if on_step is None else _whole(on_step, canvas, known, part, length)
            cfg = None if options.cfg == 1 else options.cfg
            canvas[..., part] = recursion.fill(0, canvas[..., part], known[..., part], conditions, cfg, show)[0]
            # 4. the next window has it as known context
            known[..., part] = True
    return canvas[..., :length]


def _check_request(model: Fractal, label: Tensor | None, canvas: Tensor, known: Tensor, window: int | None) -> None:
    """Refuse what would be generated wrongly, or without an end."""
    if canvas.dtype != torch.uint8 or known.dtype != torch.bool:
        raise ValueError(f"canvas must be uint8 and known bool, not {canvas.dtype} and {known.dtype}")
    if label is not None and len(label) != len(canvas):
        raise ValueError(f"there are {len(label)} labels for {len(canvas)} canvases")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if bool((canvas[known] > model.codec.alphabet - 1).any()):  # 256 itself is no uint8
        raise ValueError(f"known cells must be in 0..{model.codec.alphabet - 1}, the symbols of the model's codec")


def _windows(known: Tensor, length: int, width: int, patch: int) -> Iterator[slice]:
    """Columns to be filled next, ``width`` at most, until all of the first ``length`` are known.

    At most half of a window lies before the first unknown column, and it begins with a whole patch.
    """
    while not bool(known[..., :length].all()):
        first = int((~known).flatten(0, 2).any(0).nonzero()[0, 0])
        start = max(0, min(first - width // 2, known.shape[3] - width)) // patch * patch
        start = max(start, (first // patch + 1) * patch - width)  # a window of one patch has no room for context
        yield slice(start, start + width)


def _whole(on_step: OnStep, canvas: Tensor, known: Tensor, part: slice, length: int) -> OnStep:
    """The same call for a step of a window, which shows the whole canvas."""

    def show(window: Tensor, done: Tensor) -> None:
        shown, finished = canvas.clone(), known.clone()
        shown[..., part], finished[..., part] = window, done
        on_step(shown[..., :length], finished[..., :length])

    return show


@dataclass(frozen=True)
class Recursion:
    """The recursion of one call: fills canvases of any level by the levels below."""

    model: Fractal
    options: Generation
    noise: torch.Generator | None

    def fill(
        self,
        depth: int,
        canvas: Tensor,
        known: Tensor,
        conditions: Tensor,
        cfg: float | None,
        on_step: OnStep | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fill the unknown cells of one level's canvases.

        Args:
            depth: the level; the number of levels means the leaf.
            canvas: uint8 ``[R, C, H, W]``.
            known: bool ``[R, C, H, W]``.
            conditions: ``[R, K, D]`` or ``[2 R, K, D]``.
            cfg: guidance scale on this level, None for none.
            on_step: called after each step.

        Returns:
            Canvases ``[R, C, H, W]`` and the log-probability of what was drawn, float32 ``[R]``.
        """
        # 1. at the end of the recursion a canvas is a cell, whose channels the leaf predicts
        if depth == len(self.model.levels):
            cells = canvas.flatten(1).long(), known.flatten(1)
            symbols, log_prob = self.draw_cells(self.model.leaf, conditions, cfg, *cells)
            return symbols.to(torch.uint8).reshape_as(canvas), log_prob
        # 2. otherwise it is cut into patches, and the guiding value is drawn, which all of them have as a condition
        work = _Patches(self, depth, canvas, known, conditions, cfg, on_step)
        # 3. the levels below fill the patches
        generator = self.model.levels[depth].generator
        if isinstance(generator, AR):
            work.in_scan_order(generator)
        else:
            work.in_masked_steps(generator)
        return unpatchify(work.patches, work.grid), work.log_prob

    def draw_cells(
        self,
        head: CategoricalHead,
        conditions: Tensor,
        cfg: float | None,
        symbols: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw the channels of cells, or of guiding values, one after the other.

        Args:
            head: predicts them.
            conditions: ``[R, K, D]`` or ``[2 R, K, D]``.
            cfg: guidance scale, None for none.
            symbols: int64 ``[R, C]``, read where ``known``.
            known: bool ``[R, C]``, channels that keep their symbol.

        Returns:
            Symbols int64 ``[R, C]`` and the log-probability of those drawn, float32 ``[R]``.
        """
        stepper = head.stepper(conditions)
        total = conditions.new_zeros(len(conditions) // (1 if cfg is None else 2), dtype=torch.float32)
        channels: list[Tensor] = []
        for c in range(head.channels):
            if c:
                stepper.feed(channels[-1] if cfg is None else channels[-1].repeat(2))
            symbol, log_prob = draw_symbols(
                stepper.logits(),
                self.options.temperature,
                cfg,
                self.options.filter_threshold,
                self.noise,
                self.options.greedy,
            )
            if symbols is not None and known is not None:
                symbol = torch.where(known[:, c], symbols[:, c], symbol)
                log_prob = log_prob * ~known[:, c]
            channels.append(symbol)
            total = total + log_prob
        return torch.stack(channels, dim=1), total


class _Patches:
    """The canvases of one level, cut into patches, while they are being filled; arguments as of `Recursion.fill`.

    Attributes:
        patches: uint8 ``[R, N, C, h, w]``.
        log_prob: of all that was drawn so far, float32 ``[R]``.
    """

    def __init__(
        self,
        recursion: Recursion,
        depth: int,
        canvas: Tensor,
        known: Tensor,
        conditions: Tensor,
        cfg: float | None,
        on_step: OnStep | None,
    ) -> None:
        level, cells = recursion.model.levels[depth], canvas.shape[2:]
        self.recursion, self.depth, self.cfg, self.on_step = recursion, depth, cfg, on_step
        self.grid = grid_of((cells[0], cells[1]), level.patch)
        self.patches = patchify(canvas, level.patch).clone()
        self.known = patchify(known, level.patch)
        self.unknown = ~self.known.flatten(2).all(2)  # [R, N]
        self.conditions, self.guide = conditions, None
        self.log_prob = torch.zeros(len(canvas), device=canvas.device, dtype=torch.float32)
        if level.guide_head is not None:
            value, self.log_prob = recursion.draw_cells(level.guide_head, conditions, cfg)
            self.guide = self._twice(recursion.model.features.guide_features(value, cells.numel()))

    def in_scan_order(self, generator: AR) -> None:
        """AR: one patch after the other; patches that are known in all rows only feed the context."""
        order = generator.order(self.grid, self.patches.device)
        needed = self.unknown.any(0)[order].tolist()
        stepper = generator.stepper(self.conditions, self.grid, self.guide, self.recursion.options.use_cache)
        for s, index in enumerate(order.tolist()):
            if needed[s]:
                # 1. the condition of the patch is what comes before it
                handed = stepper.condition()
                # 2. the levels below fill it where it is unknown
                rows = self.unknown[:, index].nonzero()[:, 0]
                columns = torch.full_like(rows, index)
                filled, log_prob = self._descend(rows, columns, handed[self._twins(rows)], (s + 1) / len(order))
                self._keep(rows, columns, filled, log_prob)
            # 3. it is context of the patches after it
            stepper.feed(self._features(self.patches[:, index : index + 1]))
            if self.on_step is not None and needed[s]:
                done = ~self.unknown
                done[:, order[: s + 1]] = True
                self._show(done)

    def in_masked_steps(self, generator: MAR) -> None:
        """MAR: the cosine schedule says how many patches stay hidden after each step."""
        model, options = self.recursion.model, self.recursion.options
        rows, patches = self.unknown.shape
        device, confident = self.patches.device, options.order == "confidence"
        # 1. how many patches stay hidden, and which are revealed first
        iterations = per_level("iterations", options.iterations, len(model.levels))[self.depth]
        schedule = cosine_schedule(self.unknown.sum(1).tolist(), iterations).to(device)
        partial = self.unknown & self.known.flatten(2).any(2)
        scan = scan_order(self.grid, generator.config.scan, device)
        key = generation_order(options.order, rows, scan, device, self.recursion.noise)
        rank = generation_rank(self.unknown, partial, key)
        hidden = self.unknown.clone()
        for k in range(1, len(schedule)):
            # 2. conditions of all patches, from those that are visible
            features = self._features(self.patches)
            handed = generator(features, self.conditions, self.grid, self.guide, mask=self._twice(hidden))
            # 3. the levels below fill this step's patches, or all hidden ones, of which the surest are kept
            candidates = hidden if confident else hidden & (rank >= schedule[k][:, None])
            row, index = candidates.nonzero(as_tuple=True)
            # FractalGen counts at least one patch as still hidden, so its last step is not at full scale
            progress = (patches - max(int(schedule[k].max()), 1)) / patches
            handed = handed[self._twins(row), index.repeat(1 if self.cfg is None else 2)]
            filled, log_prob = self._descend(row, index, handed, progress)
            # 4. reveal them
            revealed = candidates
            if confident:
                revealed = self._surest(row, index, log_prob, schedule[k - 1] - schedule[k])
            chosen = revealed[row, index]
            self._keep(row[chosen], index[chosen], filled[chosen], log_prob[chosen])
            hidden = hidden & ~revealed
            if self.on_step is not None:
                self._show(~hidden)

    def _descend(self, row: Tensor, index: Tensor, handed: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Let the level below fill patches ``index`` of rows ``row``, given their conditions."""
        cfg = self.cfg
        if cfg is not None and self.depth == 0:
            cfg = scheduled(cfg, self.recursion.options.cfg_schedule, progress)
        return self.recursion.fill(self.depth + 1, self.patches[row, index], self.known[row, index], handed, cfg)

    def _keep(self, row: Tensor, index: Tensor, filled: Tensor, log_prob: Tensor) -> None:
        self.patches[row, index] = filled
        self.log_prob.index_add_(0, row, log_prob)

    def _twice(self, x: Tensor) -> Tensor:
        """Rows ``[R, ...]``, and with guidance the same once more."""
        return x.repeat(1 if self.cfg is None else 2, *[1] * (x.ndim - 1))

    def _twins(self, rows: Tensor) -> Tensor:
        """Indices of conditional rows, then of their unconditional twins."""
        return rows if self.cfg is None else torch.cat([rows, rows + len(self.patches)])

    def _features(self, patches: Tensor) -> Tensor:
        """Patches ``[R, n, C, h, w]`` -> features ``[R or 2 R, n, P]``."""
        features = self.recursion.model.features(patches.flatten(0, 1)).flatten(1)
        return self._twice(features.unflatten(0, patches.shape[:2]))

    def _surest(self, row: Tensor, index: Tensor, log_prob: Tensor, number: Tensor) -> Tensor:
        """The ``number[r]`` candidates of each row with the highest log-probability per drawn cell, bool ``[R, N]``."""
        cells = (~self.known[row, index]).flatten(1).sum(1)
        score = torch.full(self.unknown.shape, float("-inf"), device=log_prob.device, dtype=torch.float32)
        score[row, index] = log_prob / cells
        return score.argsort(dim=1, descending=True, stable=True).argsort(1) < number[:, None]

    def _show(self, done: Tensor) -> None:
        cells = done[:, :, None, None, None] | self.known
        if self.on_step is not None:
            self.on_step(unpatchify(self.patches, self.grid), unpatchify(cells, self.grid))
