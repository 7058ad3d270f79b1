"""Canvases of any width: sampling window by window, each with what is already there as known context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.fractal import Fractal


def sample_any_width(
    model: Fractal,
    canvas: Tensor,
    known: Tensor,
    label: Tensor | None = None,
    *,
    seed: int | None = None,
    on_step: Callable[[Tensor, Tensor], None] | None = None,
    **options: Any,
) -> Tensor:
    """Fill the unknown cells of canvases that may be narrower or wider than the model's own.

    A width that is no multiple of the first level's patch is padded for the model and cut again. A wider canvas is
    filled from left to right in windows of the model's width, each placed so that at most half of it lies before the
    first unknown column.

    Args:
        model: to sample from.
        canvas: uint8 ``[B, C, H, W]`` of any width.
        known: bool ``[B, C, H, W]``, cells that are given.
        label: int64 ``[B]``.
        seed: of the first window; each further window adds 1.
        on_step: called with the whole canvas so far and its finished cells.
        options: of :meth:`litscale.models.fractal.Fractal.sample`.

    Returns:
        uint8 ``[B, C, H, W]``.
    """
    width, patch = model.sizes[0][1], model.levels[0].patch[1]
    length = canvas.shape[3]
    canvas = F.pad(canvas, (0, -length % patch)).clone()
    known = F.pad(known, (0, -length % patch)).clone()
    drawn = 0
    while not bool(known[..., :length].all()):
        first = int((~known).flatten(0, 2).any(0).nonzero()[0, 0])
        start = max(0, min(first - width // 2, canvas.shape[3] - width)) // patch * patch
        start = max(start, (first // patch + 1) * patch - width)  # a window of one patch has no room for context
        window = slice(start, start + width)

        def whole(part: Tensor, done: Tensor, window: slice = window) -> None:
            if on_step is not None:
                shown, finished = canvas.clone(), known.clone()
                shown[..., window], finished[..., window] = part, done
                on_step(shown[..., :length], finished[..., :length])

        canvas[..., window] = model.sample(
            label=label,
            canvas=canvas[..., window],
            known=known[..., window],
            seed=None if seed is None else seed + drawn,
            on_step=whole if on_step is not None else None,
            **options,
        )
        known[..., window] = True
        drawn += 1
    return canvas[..., :length]
