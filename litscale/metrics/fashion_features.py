"""`FashionFeatures`: a small classifier of Fashion-MNIST, trained once and kept in the cache."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from litscale.metrics.classifier import GreyClassifier
from litscale.storage.caches import cache_root, writing_cache
from litscale.storage.checkpoints import read_checkpoint, stamp
from litscale.storage.files import DamagedError, write_atomically
from litscale.storage.fingerprints import of_arrays
from litscale.storage.idx_images import SIZES, IdxImages, to_canvases

EPOCHS, BATCH, LEARNING_RATE = 4, 128, 4e-3
FEATURES = 64


class FashionFeatures(GreyClassifier):
    """A small convolutional network that gives features and classes of clothes, or of other pictures in IDX files.

    It is trained on the training pictures of a folder, without the 5,000 that validate, when its features are asked for
    the first time: some minutes of one CPU core. The weights are kept in the cache, under a name that changes with the
    pictures; training them again on the same machine gives the same ones, and leaves torch's global generator as it is.
    """

    test_accuracy: Tensor

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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(size, _body(size), FEATURES, num_classes)
        self.register_buffer("test_accuracy", torch.zeros(()))
        self.files, self.cache = IdxImages.of(folder), cache_root(cache_dir) / "classifiers"
        self._is_trained = False
        self.eval().requires_grad_(False)

    def forward(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits, see `GreyClassifier.forward`; raises as `prepare` does, too."""
        self.prepare()
        return super().forward(canvases)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the weights of the trained network; raises as `prepare` does."""
        self.prepare()
        return super().state_dict(*args, **kwargs)

    def prepare(self) -> None:
        """Take the weights from the cache, or train them and put them there, unless that is done.

        Raises:
            FileNotFoundError: there are no pictures; the message says how to get them.
            ValueError: they are damaged, or have more classes.
            OSError: the cache cannot be written.
        """
        if self._is_trained:
            return
        # 1. the pictures, which the name in the cache depends on
        images, labels = self.files.read("train")
        if labels.max() >= self.num_classes:
            raise ValueError(
                f"FashionFeatures.num_classes is {self.num_classes}, but {self.files.folder} has labels up to "
                f"{labels.max()}: set it to {labels.max() + 1}"
            )
        recipe = f"{self} {self.side} {EPOCHS} {BATCH} {LEARNING_RATE}"
        key = hashlib.sha256(f"{recipe} {of_arrays(images, labels)}".encode()).hexdigest()[:32]
        # 2. their weights
        path = self.cache / f"{key}.pt"
        try:
            weights = read_checkpoint(path)
        except (FileNotFoundError, DamagedError):
            canvases = torch.from_numpy(to_canvases(images, self.side))[:, None]
            weights = self._trained(canvases, torch.from_numpy(labels))
            with writing_cache(self.cache, "classifiers"):
                write_atomically(path, _packed(weights))
        self._is_trained = True
        self.load_state_dict({name: weights[name] for name in super().state_dict()})

    def _trained(self, canvases: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the weights of a network that is trained on pictures, uint8 ``[n, 1, side, side]``, on the CPU."""
        show = partial(tqdm, desc="Classifier of pictures, trained once", unit="epoch", leave=False)
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            network = GreyClassifier(self.side, _body(self.side), FEATURES, self.num_classes)
            network.learn(canvases, labels, EPOCHS, min(BATCH, len(labels)), LEARNING_RATE, show)
        images, classes = self.files.read("test")
        test = torch.from_numpy(to_canvases(images, self.side))[:, None]
        accuracy = network.eval().accuracy(test, torch.from_numpy(classes))
        return {**network.state_dict(), "test_accuracy": torch.tensor(accuracy)}


def _body(side: int) -> nn.Sequential:
    """Three convolutions, each of which halves the picture, and a linear layer to the features."""
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


def _packed(weights: dict[str, Tensor]) -> bytes:
    """Return weights as a file that `read_checkpoint` reads."""
    buffer = io.BytesIO()
    torch.save(stamp(weights), buffer)
    return buffer.getvalue()
