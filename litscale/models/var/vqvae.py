"""The tokenizer: images to token maps of growing size and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litscale.models.var.autoencoder import AutoencoderConfig, Decoder, Encoder, Recomputing
from litscale.models.var.quantizer import Quantized, Quantizer


@dataclass
class VQOutput(Quantized):
    """Result of a training pass: what the quantiser yields, and the reconstruction.

    Attributes:
        images: reconstruction ``[B, C, H, W]``, not clamped.
    """

    images: Tensor


class VQVAE(nn.Module):
    """Multi-scale vector-quantised autoencoder of VAR (arXiv 2404.02905).

    It takes square images of side ``patch_nums[-1] * 2 ** (len(multipliers) - 1)``, float in [-1, 1].

    Args:
        patch_nums: side of each scale's token map, increasing; the last is the side of the latent map.
        vocab: number of codes.
        dim: channels of the latent map and of the codes.
        channels: channels of the autoencoder at full resolution, best a multiple of 32.
        multipliers: channels at each resolution in units of ``channels``; each but the first halves the image.
        blocks: residual blocks at each resolution.
        in_channels: channels of the images.
        phis: number of convolutions after the upsampling of codes, spread over the scales; 0 for one per scale.
        quant_resi: share of these convolutions, 0 for none.
        beta: weight of the commitment loss.
        znorm: look codes up by cosine instead of distance.
        dropout: dropout of the autoencoder's residual blocks.
        scale_dropout: probability that a training image keeps only a random number of leading scales.
        grad_checkpointing: recompute the autoencoder's activations in the backward pass to save memory.
        rotation: against the collapse of the codebook, pass gradients through the quantiser by the rotation trick
            (arXiv 2410.06424) instead of straight.
        simvq: against the collapse, make codes by a learned linear map of frozen vectors (SimVQ, arXiv 2411.02038).
        entropy: against the collapse, weight of a loss that is least where the codes of each scale are clearly assigned
            and evenly used (arXiv 2310.05737); 0 for none.
        entropy_temperature: how soft codes are assigned in that loss: 1 assigns a vector to the codes that are about as
            near as the nearest.

    Raises:
        ValueError: ``patch_nums`` not increasing, or an option out of range.
    """

    def __init__(
        self,
        patch_nums: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        vocab: int = 4096,
        dim: int = 32,
        channels: int = 160,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        in_channels: int = 3,
        phis: int = 4,
        quant_resi: float = 0.5,
        beta: float = 0.25,
        znorm: bool = False,
        dropout: float = 0.0,
        scale_dropout: float = 0.0,
        grad_checkpointing: bool = False,
        rotation: bool = False,
        simvq: bool = False,
        entropy: float = 0.0,
        entropy_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        # 1. the quantiser
        self.quantizer = Quantizer(
            patch_nums,
            vocab,
            dim,
            phis=phis,
            quant_resi=quant_resi,
            beta=beta,
            znorm=znorm,
            scale_dropout=scale_dropout,
            rotation=rotation,
            simvq=simvq,
            entropy=entropy,
            entropy_temperature=entropy_temperature,
        )
        # 2. the networks on both sides of it
        config = AutoencoderConfig(
            in_channels=in_channels, channels=channels, multipliers=multipliers, blocks=blocks, dim=dim, dropout=dropout
        )
        self.in_channels, self.downsampling = in_channels, config.downsampling
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        for part in self.modules():
            if isinstance(part, Recomputing):
                part.grad_checkpointing = grad_checkpointing
        self.quant_conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(dim, dim, 3, padding=1)

    @property
    def patch_nums(self) -> tuple[int, ...]:
        """Side of each scale's token map."""
        return self.quantizer.patch_nums

    @property
    def vocab(self) -> int:
        """Number of codes."""
        return self.quantizer.vocab

    @property
    def dim(self) -> int:
        """Channels of the latent map."""
        return self.quantizer.dim

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.patch_nums[-1] * self.downsampling

    def forward(self, images: Tensor) -> VQOutput:
        """Reconstruct images ``[B, C, H, W]`` for training.

        Raises:
            ValueError: the images do not fit.
        """
        quantized = self.quantizer(self.features(images))
        return VQOutput(**vars(quantized), images=self.decoder(self.post_quant_conv(quantized.f_hat)))

    def features(self, images: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to the features ``[B, dim, h, h]`` that are quantised.

        Raises:
            ValueError: the images do not fit.
        """
        wanted = (self.in_channels, self.image_size, self.image_size)
        if images.shape[1:] != wanted:
            raise ValueError(
                f"images are {list(images.shape[1:])}, but the tokenizer takes {list(wanted)}: in_channels is "
                f"{self.in_channels}, patch_nums end at {self.patch_nums[-1]} and its multipliers shrink images by "
                f"{self.downsampling}"
            )
        return self.quant_conv(self.encoder(images))

    @torch.no_grad()
    def encode(self, images: Tensor, patch_nums: Sequence[int] | None = None) -> list[Tensor]:
        """Return the token ids, int64 ``[B, n]`` for each scale.

        Args:
            images: ``[B, C, H, W]`` in [-1, 1].
            patch_nums: other scales than the tokenizer's own, ending at the latent size.

        Raises:
            ValueError: the images or ``patch_nums`` do not fit.
        """
        return self.quantizer.encode(self.features(images), patch_nums)

    def decode(self, f_hat: Tensor) -> Tensor:
        """Decode accumulated code vectors ``[B, dim, h, h]`` to images ``[B, C, H, W]``, clamped to [-1, 1]."""
        return self.decoder(self.post_quant_conv(f_hat)).clamp(-1, 1)

    @torch.no_grad()
    def tokens_to_images(self, tokens: Sequence[Tensor], all_scales: bool = False) -> Tensor:
        """Decode tokens to images.

        Args:
            tokens: int64 ``[B, n]`` of all scales, or of the leading ones.
            all_scales: also decode the images after each earlier scale.

        Returns:
            ``[B, C, H, W]`` in [-1, 1]; with ``all_scales`` one for each scale, ``[scales, B, C, H, W]``.
        """
        f_hats = self.quantizer.f_hats(tokens)
        return torch.stack([self.decode(f_hat) for f_hat in f_hats]) if all_scales else self.decode(f_hats[-1])
