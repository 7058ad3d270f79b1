"""Sequential sampling by compiled graphs (``torch.compile``): one for the step of each AR level, one for each head.

Shapes are static. A place in a sequence is a number in a tensor, and attention masks what is not written yet, so one
graph serves all places; on a GPU it is replayed as a CUDA graph.

Dimensions: R rows, C channels, K conditions, D width, A alphabet, S places of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, cast

import torch
from torch import Tensor

from litscale.models.fractal.ar import AR, StepTables
from litscale.models.fractal.head import CategoricalHead, Rules, draw_channels
from litscale.models.layers.kv_cache import StaticKVCache


@cache
def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """Return a compiled function; it compiles a graph for each combination of shapes when that first occurs."""
    import torch._dynamo

    # a level or head with each number of rows has a graph of its own
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    mode = "reduce-overhead" if device == "cuda" else None
    return cast("Callable[..., Any]", torch.compile(function, fullgraph=True, dynamic=False, mode=mode))


def _square(x: Tensor) -> Tensor:
    return x * x


@cache
def check_compiler(device: str) -> None:
    """Check that torch can compile for a device, by compiling a small function.

    Raises:
        ValueError: torch cannot compile for this device here.
    """
    try:
        with torch.compiler.set_stance("default"):  # not the eager one that a module samples in
            torch.compile(_square)(torch.ones(3, device=device))
    except Exception as error:  # whatever a compiler, its headers or its driver may raise
        # behind the reason is advice on how to debug torch
        reason = str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].strip()
        raise ValueError(
            f"generation.compile needs torch.compile, which fails on this machine for device {device}: install a C++ "
            f"compiler (g++ or clang++; on a GPU also Triton), or set generation.compile to false. Torch says: {reason}"
        ) from error


class StaticTables(StepTables):
    """Tables of sequences whose single tokens go through a compiled graph."""

    def step(self, generator: AR, token: Tensor, place: int) -> Tensor:
        """Map one token of each sequence by a compiled graph, as :meth:`StepTables.step` does."""
        assert self.caches is not None
        memories = [layer.memory(token, 3 * token.shape[1]) for layer in self.caches]
        if token.is_cuda:
            for memory in memories:
                torch._dynamo.mark_static_address(memory)  # a CUDA graph writes it where it is
        self._at.fill_(place)
        step = compiled(_level_step, token.device.type)
        state = step(generator, token, self._at, self.added, self._real_turns, memories)
        for layer in self.caches:
            layer.length += 1
        return _own(state)

    @cached_property
    def _at(self) -> Tensor:
        return torch.zeros(1, dtype=torch.long, device=self.added.device)

    @cached_property
    def _real_turns(self) -> Tensor | None:
        return None if self.turns is None else torch.view_as_real(self.turns)


def _level_step(
    generator: AR, token: Tensor, at: Tensor, added: Tensor, turns: Tensor | None, memories: list[Tensor]
) -> Tensor:
    """Map one token of each row, ``[R, D]``, at the place ``at``, int64 ``[1]``, to its state ``[R, D]``."""
    heads = generator.config.stack.heads
    caches = [StaticKVCache(memory, heads, at) for memory in memories]
    rope = None if turns is None else turns.index_select(0, at)[0]
    return generator.step(token, added.index_select(0, at), rope, caches)


def compiled_draw(
    head: CategoricalHead,
    conditions: Tensor,
    noise: Tensor | None,
    cfg: float | Tensor | None,
    symbols: Tensor | None,
    known: Tensor | None,
    rules: Rules,
) -> tuple[Tensor, Tensor | None]:
    """Draw the channels of cells by one graph; arguments and results are as in `Drawing.draw_cells`."""
    if cfg is not None and not isinstance(cfg, Tensor):  # it may change from step to step
        cfg = torch.full((1,), cfg, device=conditions.device, dtype=torch.float32)
    draw = compiled(_draw, conditions.device.type)
    drawn, log_prob = draw(head, conditions, noise, cfg, symbols, known, rules)
    return _own(drawn), None if log_prob is None else _own(log_prob)


def _draw(head: CategoricalHead, conditions: Tensor, *given: Any) -> tuple[Tensor, Tensor | None]:
    return draw_channels(head.stepper(conditions, head.tables()), *given)


def _own(result: Tensor) -> Tensor:
    """Copy a graph's result, so that the next replay of a CUDA graph does not overwrite it."""
    return result.clone() if result.is_cuda else result
