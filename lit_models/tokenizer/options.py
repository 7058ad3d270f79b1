"""Options of the training of a tokenizer: the weights of its loss, and its discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Net = Literal["vgg", "alex", "squeeze"]


@dataclass(frozen=True)
class TokenizerLoss:
    """The reconstruction loss of a tokenizer.

    Args:
        l1: Weight of the mean absolute error of images in -1..1.
        l2: Weight of the mean square error of images in -1..1.
        perceptual: Weight of LPIPS; a weight above 0 needs ``perceptual_weights``.
        perceptual_net: Classifier whose features LPIPS compares: vgg, alex or squeeze.
        perceptual_weights: Local file of torchvision's weights of that classifier; nothing is downloaded. If it is
            given, LPIPS is one of the metrics, too.
        quantizer: Weight of the codebook loss plus ``beta`` times the commitment loss.

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
    """The patch discriminator that a tokenizer is trained against.

    Args:
        weight: Weight of the adversarial loss; 0 trains without a discriminator.
        adaptive: Whether the weight is multiplied by the ratio of the norms of the gradients that the reconstruction
            loss and the adversarial loss have for the last layer of the decoder (arXiv 2012.09841).
        start_step: Optimiser step at which the discriminator starts to learn and the adversarial loss to count.
        warmup_steps: Number of optimiser steps after that over which the weight grows from 0 to its full value.
        width: Number of channels of the first layer.
        layers: Number of layers that halve the image.
        consistency: Weight of the consistency loss, which keeps the logits of an image from changing when it is
            shifted by a few pixels (arXiv 2002.04724); 0 leaves it out.

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
        """Return the fraction of the weight that counts at an optimiser step, 0 before the start."""
        return min(1.0, (step - self.start_step + 1) / max(self.warmup_steps, 1)) if step >= self.start_step else 0.0
