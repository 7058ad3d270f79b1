"""The tokenizer's opponent in training: a patch discriminator and its losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from litscale.models.var.autoencoder import group_norm

MOST_MOVED = 0.125  # of the shorter side of an image


class Discriminator(nn.Module):
    """Scores how real each patch of an image looks (PatchGAN, arXiv 1611.07004).

    It has convolutions of stride 2, then two of stride 1. Norms are over groups of channels of one image, so that its
    logits depend on neither the batch nor the number of processes.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; they double with each further one, at most to 8 times.
        layers: convolutions of stride 2; a patch is about ``2 ** (layers + 3)`` pixels wide.

    Raises:
        ValueError: an option is below 1.
    """

    def __init__(self, in_channels: int, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if min(width, layers) < 1:
            raise ValueError(f"width and layers of the discriminator must be at least 1, not {width} and {layers}")
        self.least_side = 2**layers
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            kernel, stride = (4, 2) if i < layers else (3, 1)
            convolution = nn.Conv2d(widths[i - 1], widths[i], kernel, stride, 1, bias=False)
            parts += [convolution, group_norm(widths[i]), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to logits ``[B, 1, h, w]``, positive for real ones.

        Raises:
            ValueError: the images are too small.
        """
        if min(images.shape[-2:]) < self.least_side:
            raise ValueError(
                f"the discriminator's layers shrink images by {self.least_side}, but they have "
                f"{list(images.shape[-2:])} pixels: give it fewer layers"
            )
        return self.body(images)

    def frozen(self, images: Tensor) -> Tensor:
        """Compute :meth:`forward` with gradients for the images, but not for the weights."""
        parameters = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return functional_call(self, parameters, (images,))


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the discriminator's loss from its logits: real ones are pushed above 1, others below -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def consistency_loss(discriminator: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
    """Compute how much logits change when images move a little (balanced consistency regularisation, arXiv 2002.04724).

    Args:
        discriminator: maps images to logits.
        images: ``[B, C, H, W]``.
        logits: logits of the discriminator for them, ``[B, 1, h, w]``.
    """
    moved = discriminator(random_shift(images, MOST_MOVED))
    return (moved.mean((1, 2, 3)) - logits.mean((1, 2, 3))).square().mean()


def random_shift(images: Tensor, share: float) -> Tensor:
    """Move each image ``[B, C, H, W]`` by a random number of pixels along each axis; edges are repeated."""
    batch, _, height, width = images.shape
    most = max(1, round(share * min(height, width)))
    moves = torch.randint(-most, most + 1, (2, batch, 1, 1), device=images.device)
    rows = (torch.arange(height, device=images.device)[:, None] + moves[0]).clamp(0, height - 1)  # [B, H, 1]
    columns = (torch.arange(width, device=images.device) + moves[1]).clamp(0, width - 1)  # [B, 1, W]
    image = torch.arange(batch, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """Return the weight that gives an adversarial loss the gradient norm of the reconstruction loss.

    Both are gradients of the decoder's last layer (arXiv 2012.09841, eq. 7).

    Args:
        reconstruction_gradient: gradient of the reconstruction loss for the last layer's weights, over the whole batch.
        adversarial_gradient: gradient of the adversarial loss for the same weights.

    Returns:
        A scalar from 0 to 10,000, without gradient.
    """
    ratio = reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return ratio.clamp(max=1e4).detach()
