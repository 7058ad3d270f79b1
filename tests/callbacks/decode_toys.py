"""A module whose comparisons can be worked out by hand; the distributed test uses it too."""

from __future__ import annotations

from typing import Any

import torch
from callback_toys import TwoLevels
from torch import Tensor

from lit_models.speculative.comparison import Comparison
from litscale.models.sdvar import DecodeReport, Round
from litscale.models.var import VARGeneration

SCALES = 3


class Comparing(TwoLevels):
    """Of each image: scale 0 is accepted, scale 1 if its red mean is even; one more call for the others."""

    def __init__(self, lossless: bool = False) -> None:
        super().__init__(lr=0.1)
        self.scales, self.seed, self.generation = SCALES, 0, VARGeneration()
        self.decoder = "speculative (gamma 2, TopK)"
        self.lossless = lossless
        self.decoded: list[int] = []

    def compare(self) -> None:
        """Only asked for by name."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return super().training_step(torch.ones(1, 2), batch_idx)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Comparison | None:
        canvas = batch["canvas"]
        self.decoded += keys(canvas)
        return comparison(canvas, self.lossless)

    test_step = validation_step


def keys(canvas: Tensor) -> list[int]:
    """A number of each image."""
    return canvas.long().flatten(1).sum(1).tolist()


def comparison(canvas: Tensor, lossless: bool = False) -> Comparison:
    """What :class:`Comparing` makes of canvases uint8 ``[B, C, H, W]``."""
    even = tuple(key % 2 == 0 for key in keys(canvas))
    rows = tuple(range(len(even)))
    rounds = [
        Round(
            images=rows,
            first=0,
            drafted=2,
            accepted=tuple(1 + x for x in even),
            kept=tuple(2 + x for x in even),
            draft_tokens=5,
            target_tokens=21,
        )
    ]
    if late := tuple(row for row in rows if not even[row]):
        rounds.append(
            Round(
                images=late,
                first=2,
                drafted=0,
                accepted=(0,) * len(late),
                kept=(1,) * len(late),
                draft_tokens=0,
                target_tokens=16,
            )
        )
    seconds = {"wall": 0.5 * len(rows)}
    target = DecodeReport(SCALES, len(rows), (), seconds={"wall": 1.5 * len(rows)})
    changed = canvas if lossless else 255 - canvas
    agreement, difference = (torch.tensor([1.0 if x else 0.5 for x in even]) for _ in range(2))
    return Comparison(
        canvas=changed,
        target_canvas=canvas,
        report=DecodeReport(SCALES, len(rows), tuple(rounds), seconds=seconds),
        target_report=target,
        agreement=agreement,
        difference=1 - difference,
    )
