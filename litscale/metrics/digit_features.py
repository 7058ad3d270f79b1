"""`DigitFeatures`: a small classifier of handwritten digits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, BATCH, LEARNING_RATE = 15, 64, 3e-3
SIDE = 8
HELD_OUT = 5  # every fifth scan


class DigitFeatures(nn.Module):
    """A small convolutional network that gives features and classes of digits. Its constructor trains it in seconds.

    The network is trained on four fifths of the 1797 scans of scikit-learn, every fifth scan being held out. The
    training always gives the same weights and leaves torch's global generator unchanged. Features are scaled to a mean
    square of 1 over the training scans, the scale that the cubic kernel of KID is made for.

    Attributes:
        held_out_accuracy: Fraction of the held-out scans that the network classifies correctly.
    """

    num_features = 64
    num_classes = 10
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(1, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 64, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(64 * (SIDE // 2) ** 2, self.num_features),
                nn.ReLU(),
            )
            self.head = nn.Linear(self.num_features, self.num_classes)
            self.register_buffer("scale", torch.ones(()))
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # with batches this small, several threads mostly wait for each other
            self.held_out_accuracy = self._learn()
            torch.set_num_threads(threads)
        self.eval().requires_grad_(False)

    def _learn(self) -> float:
        """Train the network, and return its accuracy on the held-out scans."""
        from sklearn.datasets import load_digits  # a second to import

        # 1. split the scans
        scans = load_digits()
        canvases = torch.from_numpy(np.rint(scans.images * 255 / 16).astype(np.uint8))[:, None]
        labels = torch.from_numpy(scans.target)
        held_out = torch.arange(len(labels)) % HELD_OUT == HELD_OUT - 1
        images, classes = self._grey(canvases[~held_out]), labels[~held_out]
        # 2. train
        optimizer = torch.optim.AdamW(self.parameters(), LEARNING_RATE, weight_decay=1e-4)
        steps = EPOCHS * (len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
                optimizer.zero_grad()
                functional.cross_entropy(self.head(self.body(images[rows])), classes[rows]).backward()
                optimizer.step()
                schedule.step()
        # 3. scale the features, and measure the accuracy
        self.scale = self.body(images).detach().square().mean().sqrt()
        _, logits = self(canvases[held_out])
        return (logits.argmax(dim=1) == labels[held_out]).float().mean().item()

    def forward(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and the logits of the ten classes.

        Args:
            canvases: uint8 ``[B, C, H, W]`` with any C; H and W are multiples of 8. They are averaged over channels and
                areas to grey images of 8 x 8 pixels.

        Returns:
            Features, float32 ``[B, 64]``, and logits, float32 ``[B, 10]``.

        Raises:
            ValueError: H or W is not a multiple of 8.
        """
        features = self.body(self._grey(canvases))
        return features / self.scale, self.head(features)

    @staticmethod
    def _grey(canvases: Tensor) -> Tensor:
        """Return grey images, float32 ``[B, 1, 8, 8]`` in 0..1."""
        height, width = canvases.shape[2:]
        if height % SIDE or width % SIDE or not height or not width:
            raise ValueError(f"DigitFeatures takes sides that are multiples of {SIDE}, not {height} x {width}")
        return functional.adaptive_avg_pool2d(canvases.float() / 255, SIDE).mean(dim=1, keepdim=True)
