"""One level of the recursion."""

from __future__ import annotations

from torch import nn

from litscale.models.fractal.ar import AR
from litscale.models.fractal.head import CategoricalHead
from litscale.models.fractal.mar import MAR

GENERATORS: dict[str, type[AR] | type[MAR]] = {"ar": AR, "mar": MAR}


class Level(nn.Module):
    """One level of the recursion: how its canvas is cut, its generator, and the predictor of its guiding value."""

    def __init__(self, patch: tuple[int, int], generator: AR | MAR, guide_head: CategoricalHead | None) -> None:
        super().__init__()
        self.patch = patch
        self.generator = generator
        self.guide_head = guide_head
