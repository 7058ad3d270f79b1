"""Options of generation with fractal models: steps, guidance, temperature, orders, decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.guidance import SCHEDULES as CFG_SCHEDULES
from litscale.models.fractal.masking import ORDERS, SCHEDULES
from litscale.models.fractal.options import check_name, per_level
from litscale.models.numbers import one_or_more, real, whole
from litscale.models.small_weights import WEIGHTS

DECODINGS = ("auto", "jacobi", "sequential")
GUESSES = ("repeat", "previous", "draft")


@dataclass(frozen=True)
class Generation:
    """How samples are drawn.

    Args:
        iterations: number of MAR steps, one for all levels or one per level; AR levels ignore theirs. FractalGen uses
            64 on the first level and 16 below.
        schedule: how many of MAR's patches stay hidden after each step, one for all levels or one per level: ``cosine``
            (few are revealed at first, when little is known, and many at the end) or ``linear`` (always equally many).
        temperature: divides the logits; below 1 is safer. FractalGen's multiplies them (1.02 to 1.1).
        min_p: symbols that are less probable than this share of the most probable one are not drawn (arXiv 2407.01082);
            0 is off. A higher temperature with it varies more among likely symbols, without the odd ones.
        cfg: scale of classifier-free guidance; 1 is off, and models without classes need 1. FractalGen publishes 11
            (FractalAR, 64 px), 6.5 (FractalMAR, 64 px), and 29, 21 and 19 (Base, Large and Huge, 256 px).
        cfg_schedule: ``linear`` (rising from 1 over the first level's steps, as published) or ``constant``.
        filter_threshold: guidance does not raise the probability of symbols that are less probable than this.
        order: order of MAR's patches: ``random``, ``raster`` or ``confidence`` (most probable first).
        confidence_oversampling: with ``confidence``, how many times as many patches are drawn as a step reveals.
        use_cache: keep keys and values of AR levels; without it they are recomputed, with the same result.
        token_cache: number of MAR steps of which only the first computes all patches. The others compute the patches
            that were revealed last and those that they draw, and keep the rest (LazyMAR). One for all levels or one
            per level; 1 is off. Samples change slightly, and large batches are faster. LazyMAR uses 9, after 5 whole
            steps of 64.
        greedy: take the most probable symbol everywhere.
        decoding: ``jacobi`` guesses whole canvases of a level, scores the guess in one pass and redraws it until
            nothing changes, which gives the symbols of ``sequential``; ``auto`` does so on piano rolls. If the last
            level is MAR, both are the same.
        parallel_level: level whose canvases are guessed, from 1; None takes the coarsest level from which on all are
            AR.
        guess: ``repeat`` (notes are held, silent cells stay silent; colours stay), ``previous`` (a copy of the patch to
            the left) or ``draft`` (a smaller network draws it). Each later pass over a patch guesses what the last one
            drew.
        weights: what large linear layers read: ``float32``, their own weights; ``bfloat16`` or ``int8``, small copies
            of them, which are faster if reading weights takes most of the time, as in small batches on a CPU.
            ``validate`` and ``test`` report what the copies cost in likelihood.
        compile: make a graph of each level's step and one of each cell's channels with ``torch.compile``, for
            ``sequential`` decoding of AR levels; on a GPU they are replayed as CUDA graphs. It needs a C++ compiler and
            takes a minute before the first sample. Only if two symbols are almost equally likely, rounding can
            change which one is drawn.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    iterations: int | list[int] = 8
    schedule: str | list[str] = "cosine"
    temperature: float = 1.0
    min_p: float = 0.0
    cfg: float = 1.0
    cfg_schedule: str = "linear"
    filter_threshold: float = 1e-4
    order: str = "random"
    confidence_oversampling: float = 2.0
    use_cache: bool = True
    token_cache: int | list[int] = 1
    greedy: bool = False
    decoding: str = "auto"
    parallel_level: int | None = None
    guess: str = "repeat"
    weights: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        # 1. numbers, in Python's own types, so that options can be written as JSON
        for name in ("iterations", "token_cache"):
            counts = one_or_more(name, getattr(self, name), whole)
            steps = list(counts) if isinstance(counts, tuple) else [counts]
            if not steps or min(steps) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
            object.__setattr__(self, name, steps if isinstance(counts, tuple) else counts)
        for name in ("temperature", "min_p", "cfg", "filter_threshold", "confidence_oversampling"):
            object.__setattr__(self, name, real(name, getattr(self, name)))
        if self.parallel_level is not None:
            object.__setattr__(self, "parallel_level", whole("parallel_level", self.parallel_level))
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, not {self.temperature}; greedy takes the likeliest symbol")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in 0..1, not {self.min_p}; 0 draws among all symbols")
        if not 0 <= self.cfg < math.inf:
            raise ValueError(f"cfg must not be negative, not {self.cfg}; 1 means no guidance")
        if not 0 <= self.filter_threshold <= 1:
            raise ValueError(f"filter_threshold must be in 0..1, not {self.filter_threshold}")
        if not self.confidence_oversampling >= 1:
            raise ValueError(f"confidence_oversampling must be at least 1, not {self.confidence_oversampling}")
        # 2. names
        for schedule in [self.schedule] if isinstance(self.schedule, str) else self.schedule:
            check_name("schedule", schedule, SCHEDULES)
        check_name("cfg_schedule", self.cfg_schedule, CFG_SCHEDULES)
        check_name("order", self.order, ORDERS)
        check_name("decoding", self.decoding, DECODINGS)
        check_name("guess", self.guess, GUESSES)
        check_name("weights", self.weights, WEIGHTS)
        # 3. what a compiled step needs of the others
        if self.compile and self.weights != "float32":
            raise ValueError(f"compile reads weights in float32, not {self.weights}: set weights to float32")
        if self.compile and not self.use_cache:
            raise ValueError("compile keeps keys and values of AR levels: set use_cache to true")

    def check(self, levels: int, num_classes: int) -> None:
        """Check that the options fit a network with so many levels and classes.

        Raises:
            ValueError: ``iterations``, ``schedule`` or ``token_cache`` of another number of levels, or guidance without
                classes.
        """
        per_level("iterations", self.iterations, levels)
        per_level("schedule", self.schedule, levels)
        per_level("token_cache", self.token_cache, levels)
        if self.cfg != 1 and not num_classes:
            raise ValueError(f"cfg {self.cfg} needs a network with classes: set num_classes, or cfg to 1")

    def parallel_depth(self, model: Fractal) -> int:
        """Check the options and return the level decoded in parallel; the number of levels if there is none.

        Raises:
            ValueError: as for :meth:`check`; or ``parallel_level`` is none of the levels that are AR down to the last,
                or ``compile`` is set for a MAR level or for parallel decoding.
        """
        levels = len(model.levels)
        self.check(levels, model.num_classes)
        parallel = self._parallel_depth(model)
        if self.compile and not all(level.generator.causal for level in model.levels):
            raise ValueError("compile is for networks whose levels are all AR: set compile to false")
        if self.compile and parallel < levels:
            raise ValueError("compile is for sequential decoding: set decoding to sequential, or compile to false")
        return parallel

    def _parallel_depth(self, model: Fractal) -> int:
        levels = len(model.levels)
        coarsest = levels
        while coarsest > 1 and model.levels[coarsest - 1].generator.causal:
            coarsest -= 1
        if self.parallel_level is not None and not coarsest <= self.parallel_level < levels:
            choices = ", ".join(map(str, range(coarsest, levels))) or "none of this network's levels"
            raise ValueError(
                f"parallel_level must be a level from which on all are AR ({choices}), not {self.parallel_level}"
            )
        if self.decoding == "sequential" or (self.decoding == "auto" and model.codec.is_image) or not self.use_cache:
            return levels
        return coarsest if self.parallel_level is None else self.parallel_level
