"""`FashionFeatures`: a small classifier of Fashion-MNIST, trained once and kept in the cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litscale.metrics.trained_classifier import FEATURES, TrainedClassifier, Training
from litscale.storage.idx_images import SIZES, IdxImages, to_canvases

TRAINING = Training(epochs=4, batch_size=128, learning_rate=4e-3)


class FashionFeatures(TrainedClassifier):
    """A small convolutional network that gives features and classes of clothes, or of other pictures in IDX files.

    It is trained on the training pictures of a folder, without the 5,000 that validate, when its features are asked for
    the first time: some minutes of one CPU core. It is kept in the cache.
    """

    def __init__(
        self, folder: str | None = None, size: int = 32, num_classes: int = 10, cache_dir: str | None = None
    ) -> None:
        """Check the options; nothing is read yet.

        Args:
            folder: Where the four IDX files are, as for `datamodules.FashionMNISTDataModule`; null takes the same one
                as there.
            size: Side of the pictures that the network sees, 32 or 16 pixels; larger canvases are averaged over areas.
            num_classes: Number of classes; Fashion-MNIST, MNIST and KMNIST have 10.
            cache_dir: Where the weights are kept; null takes the environment variable LITSCALE_CACHE, else litscale in
                XDG_CACHE_HOME or ~/.cache.

        Raises:
            ValueError: there is no such size, or there are no classes.
        """
        if size not in SIZES:
            raise ValueError(f"FashionFeatures.size must be one of {', '.join(map(str, SIZES))}, not {size}")
        if num_classes < 1:
            raise ValueError(f"FashionFeatures.num_classes must be at least 1, not {num_classes}")
        super().__init__(size, num_classes, TRAINING, cache_dir)
        self.files = IdxImages.of(folder)

    @staticmethod
    def body_for(side: int) -> nn.Sequential:
        """Return three convolutions, each of which halves the picture, and a linear layer to the features."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (side // 8) ** 2, FEATURES),
            nn.ReLU(),
        )

    def pictures(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """Return the pictures of the test split, or of the training, and their classes.

        Raises:
            FileNotFoundError: there are no pictures; the message says how to get them.
            ValueError: they are damaged, or have more classes.
        """
        images, labels = self.files.read("test" if held_out else "train")
        if labels.max() >= self.num_classes:
            raise ValueError(
                f"FashionFeatures.num_classes is {self.num_classes}, but {self.files.folder} has labels up to "
                f"{labels.max()}: set it to {labels.max() + 1}"
            )
        return torch.from_numpy(to_canvases(images, self.side))[:, None], torch.from_numpy(labels)
