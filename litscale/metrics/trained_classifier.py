"""`TrainedClassifier`: a small classifier that is trained once and kept in the cache."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litscale.metrics.classifier import GreyClassifier
from litscale.storage.caches import cache_root, writing_cache
from litscale.storage.checkpoints import read_checkpoint, stamp
from litscale.storage.files import DamagedError, write_atomically
from litscale.storage.fingerprints import of_arrays

FEATURES = 64


@dataclass(frozen=True)
class Training:
    """How long a classifier is trained, see `GreyClassifier.learn`."""

    epochs: int
    batch_size: int
    learning_rate: float


class TrainedClassifier(GreyClassifier, ABC):
    """A classifier that is trained when its features or its weights are asked for the first time.

    The weights are kept in the cache, under a name that changes with the pictures. Training them again on the same
    machine gives the same ones, and leaves torch's global generator as it is.

    Args:
        side: Height and width of the pictures that the network sees, in pixels.
        num_classes: Number of classes.
        training: How long it is trained.
        cache_dir: Where the weights are kept; None takes the environment variable LITSCALE_CACHE, else litscale in
            XDG_CACHE_HOME or ~/.cache.
    """

    held_out_accuracy: Tensor

    def __init__(self, side: int, num_classes: int, training: Training, cache_dir: str | None = None) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(side, self.body_for(side), FEATURES, num_classes)
        self.register_buffer("held_out_accuracy", torch.zeros(()))
        self.training_options, self.cache = training, cache_root(cache_dir) / "classifiers"
        self._is_trained = False
        self.eval().requires_grad_(False)

    @staticmethod
    @abstractmethod
    def body_for(side: int) -> nn.Sequential:
        """Return the layers from pictures of this side to features."""

    @abstractmethod
    def pictures(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """Return pictures, uint8 ``[n, 1, side, side]``, and their classes, int64 ``[n]``.

        Args:
            held_out: Those that accuracy is measured by; else those that the network is trained on.
        """

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
            OSError: the cache cannot be written. What `pictures` raises is raised, too.
        """
        if self._is_trained:
            return
        # 1. the pictures, which the name in the cache depends on
        canvases, labels = self.pictures(held_out=False)
        recipe = f"{self} {self.side} {astuple(self.training_options)}"
        data = of_arrays(canvases.numpy(), labels.numpy())
        path = self.cache / f"{hashlib.sha256(f'{recipe} {data}'.encode()).hexdigest()[:32]}.pt"
        # 2. their weights
        try:
            weights = read_checkpoint(path)
        except (FileNotFoundError, DamagedError):
            weights = self._trained(canvases, labels)
            self._keep(path, weights)
        self._is_trained = True
        self.load_state_dict({name: weights[name] for name in super().state_dict()})

    def _trained(self, canvases: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the weights of a network that is trained on the CPU."""
        training = self.training_options
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            network = GreyClassifier(self.side, self.body_for(self.side), FEATURES, self.num_classes)
            batch_size = min(training.batch_size, len(labels))
            network.learn(
                canvases,
                labels,
                epochs=training.epochs,
                batch_size=batch_size,
                learning_rate=training.learning_rate,
            )
        accuracy = network.eval().accuracy(*self.pictures(held_out=True))
        return {**network.state_dict(), "held_out_accuracy": torch.tensor(accuracy)}

    def _keep(self, path: Path, weights: dict[str, Tensor]) -> None:
        """Write weights as a file that `read_checkpoint` reads."""
        buffer = io.BytesIO()
        torch.save(stamp(weights), buffer)
        with writing_cache(self.cache, "classifiers"):
            write_atomically(path, buffer.getvalue())
