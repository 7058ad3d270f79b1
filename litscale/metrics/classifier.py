"""`GreyClassifier`: small convolutional classifiers of grey pictures, whose features pictures are compared in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from litscale.progress import progress


class GreyClassifier(nn.Module):
    """A convolutional network that gives features and classes of grey pictures.

    Features are scaled to a mean square of 1 over the training pictures, the scale that the cubic kernel of KID is
    made for.

    Args:
        side: Height and width of the pictures that the network sees, in pixels.
        body: Maps float ``[B, 1, side, side]`` to features ``[B, num_features]``.
        num_features: Number of features.
        num_classes: Number of classes.
    """

    scale: Tensor

    def __init__(self, side: int, body: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.side, self.num_features, self.num_classes = side, num_features, num_classes
        self.body = body
        self.head = nn.Linear(num_features, num_classes)
        self.register_buffer("scale", torch.ones(()))

    def learn(self, canvases: Tensor, labels: Tensor, *, epochs: int, batch_size: int, learning_rate: float) -> None:
        """Train the network on one thread, with the numbers of torch's global generator, and scale the features.

        Args:
            canvases: Pictures as `forward` takes them.
            labels: Their classes, int64 ``[n]``.
            epochs: How often each picture is seen; the rest of a last batch is left out.
            batch_size: Pictures of a step.
            learning_rate: Its peak in a one-cycle schedule.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # with batches this small, several threads mostly wait for each other
        # 1. train
        images = self._grey(canvases)
        optimizer = torch.optim.AdamW(self.parameters(), learning_rate, weight_decay=1e-4)
        steps = epochs * (len(images) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
        for _ in progress(range(epochs), "Epochs of a classifier of pictures, trained once", epochs, leave=False):
            for rows in torch.randperm(len(images))[: len(images) // batch_size * batch_size].split(batch_size):
                optimizer.zero_grad()
                functional.cross_entropy(self.head(self.body(images[rows])), labels[rows]).backward()
                optimizer.step()
                schedule.step()
        # 2. scale the features
        self.scale = self._mean_square(images).sqrt()
        torch.set_num_threads(threads)

    @torch.no_grad()
    def _mean_square(self, images: Tensor) -> Tensor:
        """Return the mean square of the features of grey pictures."""
        return torch.cat([self.body(part) for part in images.split(5000)]).square().mean()

    @torch.no_grad()
    def accuracy(self, canvases: Tensor, labels: Tensor) -> float:
        """Return the fraction of pictures that are classified correctly.

        Args:
            canvases: Pictures as `forward` takes them.
            labels: Their classes, int64 ``[n]``.
        """
        right = [
            (self(part)[1].argmax(dim=1) == wanted).float().sum()
            for part, wanted in zip(canvases.split(5000), labels.split(5000), strict=True)
        ]
        return float(sum(right)) / len(labels)

    def forward(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and the logits of the classes.

        Args:
            canvases: uint8 ``[B, C, H, W]`` with any C; H and W are multiples of the network's side. They are averaged
                over channels and areas to grey pictures of that side.

        Returns:
            Features, float32 ``[B, num_features]``, and logits, float32 ``[B, num_classes]``.

        Raises:
            ValueError: H or W is not a multiple of the side.
        """
        features = self.body(self._grey(canvases))
        return features / self.scale, self.head(features)

    def _grey(self, canvases: Tensor) -> Tensor:
        """Return grey pictures, float32 ``[B, 1, side, side]`` in 0..1."""
        height, width = canvases.shape[2:]
        if height % self.side or width % self.side or not height or not width:
            raise ValueError(
                f"{type(self).__name__} takes sides that are multiples of {self.side}, not {height} x {width}"
            )
        return functional.adaptive_avg_pool2d(canvases.float() / 255, self.side).mean(dim=1, keepdim=True)
