"""LPIPS with weights from a local file."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.tokenizer.options import Net
from litscale.models.state_dicts import differences
from litscale.storage.checkpoints import read_checkpoint

FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


class PerceptualLoss(nn.Module):
    """Learned perceptual image patch similarity (LPIPS, arXiv 1801.03924), by the network of torchmetrics.

    Nothing is downloaded.

    Args:
        net: The classifier whose features are compared.
        weights: A file of torchvision's weights of that classifier.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds other weights.
    """

    def __init__(self, net: Net, weights: str) -> None:
        super().__init__()
        # The public class of torchmetrics would download the classifier. The import takes a second.
        from torchmetrics.functional.image.lpips import _NoTrainLpips

        self.network: Any = _NoTrainLpips(net=net, pnet_rand=True)
        # 1. read the weights, whose names torchvision and torchmetrics spell differently
        given = read_checkpoint(weights, "perceptual_weights")
        own = {
            re.sub(r"^slices?\.?\d+\.", "features.", name): value
            for name, value in self.network.net.state_dict().items()
        }
        # 2. those of the features must be the network's
        features = {name: value for name, value in given.items() if name in own}
        if problems := differences(own, features):
            raise ValueError(
                f"perceptual_weights {weights} does not hold torchvision's weights of {net} ({FILES[net]}): "
                f"{'; '.join(problems[:3])}"
            )
        # 3. fill it
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(features[name])
        self.requires_grad_(False)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the distances, ``[B]``, of pairs of images ``[B, 1 or 3, H, W]`` in -1..1."""
        return self.network(images.expand(-1, 3, -1, -1), others.expand(-1, 3, -1, -1)).flatten()
