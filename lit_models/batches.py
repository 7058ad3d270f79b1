"""`Batch`, `StepOutput` and `Prediction`: what modules take and give."""

from __future__ import annotations

from typing import Any, TypedDict

from torch import Tensor


class Batch(TypedDict, total=False):
    """A batch as data modules yield it; which entries it has depends on the data and on the stage.

    Dimensions: B items of the batch, C channels, H rows, W columns, L tokens of all scales.

    Attributes:
        canvas: symbols, uint8 ``[B, C, H, W]``.
        label: classes, int64 ``[B]``.
        start: number of each canvas' first column within its piece, int64 ``[B]``.
        counted: in evaluation of whole pieces, the columns whose likelihood counts, bool ``[B, W]``.
        side_by_side: there, the canvases that do not overlap and are filled, bool ``[B]``.
        tokens: in place of a canvas, the tokens of a cache, int64 ``[B, L]``.
        known: in prediction, the cells of the canvas that are given, bool ``[B, C, H, W]``.
        index: in prediction, the number of each sample of the request, int64 ``[B]``.
        seed: in prediction, the seed of the batch.
    """

    canvas: Tensor
    label: Tensor
    start: Tensor
    counted: Tensor
    side_by_side: Tensor
    tokens: Tensor
    known: Tensor
    index: Tensor
    seed: int


class StepOutput(TypedDict):
    """What a training step returns.

    Attributes:
        loss: the scalar that is minimised.
        report: scalars by name, which callbacks log.
    """

    loss: Tensor
    report: dict[str, Tensor]


class Prediction(TypedDict):
    """A batch of generated canvases.

    Attributes:
        canvas: symbols, uint8 ``[B, C, H, W]``.
        known: the cells that were given, bool ``[B, C, H, W]``.
        index: the number of each sample of the request, int64 ``[B]``.
        label: classes, int64 ``[B]``, or None.
        settings: the options of generation, and the seed.
        decoding: what decoding took, by name.
        frames: after each step, the canvas and a mask of its finished cells; None unless they are recorded.
    """

    canvas: Tensor
    known: Tensor
    index: Tensor
    label: Tensor | None
    settings: dict[str, Any]
    decoding: dict[str, float]
    frames: list[tuple[Tensor, Tensor]] | None
