"""A network of one's own, by class_path in LitFractal, and a function that samples it."""

import torch
from torch import nn

from litscale.models.codec import Codec
from litscale.models.fractal import CanvasNetwork, FractalOutput


class SameEverywhere(CanvasNetwork):
    """Every cell has the same distribution, given the class; ``shades`` symbols of the 256 are possible."""

    def __init__(self, size: int, num_classes: int, shades: int = 256) -> None:
        super().__init__(Codec("gray"), [(size, size)], num_classes)
        self.shades = shades
        self.scores = nn.Embedding(num_classes + 1, shades)

    def log_probs(self, label: torch.Tensor) -> torch.Tensor:
        """float ``[B, shades]``; -1 is a class of its own."""
        return self.scores(label % len(self.scores.weight)).log_softmax(-1)

    def nats(self, canvas: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        """float ``[B]``."""
        symbols = canvas.flatten(1).long().clamp(max=self.shades - 1)
        label = torch.full((len(canvas),), -1) if label is None else label
        return -self.log_probs(label).gather(1, symbols).sum(1)

    def forward(self, canvas, label=None, with_entropy=False):
        """See `CanvasNetwork`."""
        return FractalOutput(self.nats(canvas, label).mean() / canvas[0].numel())

    def nll_of_passes(self, canvas, label=None, passes=1, *, seed=None):
        """See `CanvasNetwork`."""
        return self.nats(canvas, label).expand(passes, -1)


def draw_cells(network, label, options, *, batch_size, canvas, known, length, seed, on_step):
    """Draw each cell by itself; of the options, the temperature plays a part."""
    if canvas is None:
        canvas = torch.zeros(batch_size if label is None else len(label), 1, *network.sizes[0], dtype=torch.uint8)
        known = torch.zeros_like(canvas, dtype=torch.bool)
    label = torch.full((len(canvas),), -1) if label is None else label
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    shares = (network.log_probs(label) / options.temperature).softmax(-1)
    drawn = torch.multinomial(shares, canvas[0].numel(), replacement=True, generator=noise)
    return torch.where(known, canvas, drawn.view_as(canvas).byte())
