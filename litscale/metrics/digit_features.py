"""`DigitFeatures`: a small classifier of handwritten digits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from litscale.metrics.trained_classifier import FEATURES, TrainedClassifier, Training

TRAINING = Training(epochs=15, batch_size=64, learning_rate=3e-3)
SIDE, CLASSES = 8, 10
HELD_OUT = 5  # every fifth scan


class DigitFeatures(TrainedClassifier):
    """A small convolutional network that gives features and classes of digits.

    It is trained in seconds on four fifths of the 1797 scans of scikit-learn, every fifth scan being held out, when its
    features are asked for the first time, and kept in the cache. It sees grey pictures of 8 x 8 pixels.
    """

    def __init__(self, cache_dir: str | None = None) -> None:
        """Store the options; nothing is trained yet.

        Args:
            cache_dir: Where the weights are kept; null takes the environment variable LITSCALE_CACHE, else litscale in
                XDG_CACHE_HOME or ~/.cache.
        """
        super().__init__(SIDE, CLASSES, TRAINING, cache_dir)

    @staticmethod
    def body_for(side: int) -> nn.Sequential:
        """Return two convolutions and a linear layer to the features."""
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (side // 2) ** 2, FEATURES),
            nn.ReLU(),
        )

    def pictures(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """Return the scans that are held out, or the others, and their digits."""
        from sklearn.datasets import load_digits  # a second to import

        scans = load_digits()
        canvases = torch.from_numpy(np.rint(scans.images * 255 / 16).astype(np.uint8))[:, None]
        chosen = (torch.arange(len(canvases)) % HELD_OUT == HELD_OUT - 1) == held_out
        return canvases[chosen], torch.from_numpy(scans.target)[chosen]
