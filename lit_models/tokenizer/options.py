"""What a tokenizer is trained against: the terms of its loss, and its opponent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Net = Literal["vgg", "alex", "squeeze"]


@dataclass(frozen=True)
class TokenizerLoss:
    """What a reconstruction is judged by; each option is a weight unless it says otherwise.

    Args:
        l1: of the mean absolute error.
        l2: of the mean square error.
        perceptual: of LPIPS; needs perceptual_weights.
        perceptual_net: classifier whose features LPIPS compares: vgg, alex or squeeze.
        perceptual_weights: torchvision's weights of that classifier, a local file; nothing is downloaded. With it,
            LPIPS is also among the metrics.
        quantizer: of the codebook loss plus ``beta`` times the commitment loss.

    Raises:
        ValueError: a weight is negative, the classifier is unknown, or LPIPS has no weights.
    """

    l1: float = 0.2
    l2: float = 1.0
    perceptual: float = 0.0
    perceptual_net: Net = "vgg"
    perceptual_weights: str | None = None
    quantizer: float = 1.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "perceptual", "quantizer"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"loss.{name} must not be negative, got {getattr(self, name)}")
        if self.perceptual_net not in get_args(Net):
            raise ValueError(f"loss.perceptual_net must be {', '.join(get_args(Net))}, not {self.perceptual_net!r}")
        if self.perceptual and self.perceptual_weights is None:
            raise ValueError(
                f"loss.perceptual is {self.perceptual}, but loss.perceptual_weights is not given: download "
                f"torchvision's weights of {self.perceptual_net} and give the file, or set loss.perceptual to 0"
            )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The patch discriminator.

    Args:
        weight: of the adversarial loss, 0 for no discriminator.
        adaptive: also multiply it by the ratio of the gradients of the reconstruction and the adversarial loss for the
            decoder's last layer (arXiv 2012.09841).
        start_step: optimiser step at which the discriminator begins to learn and to judge.
        warmup_steps: steps over which its weight grows from 0 after that.
        width: channels of its first layer.
        layers: how often it halves the image.
        consistency: weight of its loss for changing its verdict when images move a little, 0 for none.

    Raises:
        ValueError: an option is out of range.
    """

    weight: float = 0.0
    adaptive: bool = True
    start_step: int = 0
    warmup_steps: int = 0
    width: int = 64
    layers: int = 3
    consistency: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight", "start_step", "warmup_steps", "consistency"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"discriminator.{name} must not be negative, got {getattr(self, name)}")
        for name in ("width", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"discriminator.{name} must be at least 1, got {getattr(self, name)}")

    def factor(self, step: int) -> float:
        """Share of the weight at an optimiser step, 0 before the start."""
        return min(1.0, (step - self.start_step + 1) / max(self.warmup_steps, 1)) if step >= self.start_step else 0.0
