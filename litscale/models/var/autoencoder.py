"""Convolutional encoder and decoder of the tokenizer (the layout of latent diffusion, arXiv 2112.10752)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint


def group_norm(channels: int) -> nn.GroupNorm:
    """Make a group norm with the largest number of groups that divides both 32 and the channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        dropout: dropout before the second convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in, H, W]`` to ``[B, out, H, W]``."""
        # In place, as another large result would be another walk through fresh memory.
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(self.drop(F.silu(self.norm2(h), inplace=True)))
        return self.shortcut(x) + h


class SpatialAttention(nn.Module):
    """Residual self-attention of one head over all positions of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, H, W]``."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)  # each [B, 1, HW, C]
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


class Recomputing(nn.Module):
    """Runs blocks, on request with activation checkpointing.

    Attributes:
        grad_checkpointing: recompute their activations in the backward pass instead of keeping them.
    """

    grad_checkpointing = False

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run a block, with activation checkpointing if that is on and the module is in training."""
        recompute = self.grad_checkpointing and self.training
        out: Tensor = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return out


class Level(Recomputing):
    """Residual blocks at one resolution, each followed by attention on the lowest one, then the change of resolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        blocks: number of residual blocks.
        attention: whether attention follows each block.
        resample: leads to the next resolution; none on the last level.
        dropout: dropout of the residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        blocks: int,
        attention: bool,
        resample: nn.Module | None,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResidualBlock(a, b, dropout) for a, b in pairwise(widths))
        self.attn = nn.ModuleList(SpatialAttention(out_channels) if attention else nn.Identity() for _ in range(blocks))
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in, H, W]`` to ``[B, out, H', W']``."""
        for block, attn in zip(self.block, self.attn, strict=True):
            x = self.run(attn, self.run(block, x))
        return self.resample(x)


class Middle(Recomputing):
    """A residual block, attention and another residual block at the lowest resolution."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dropout)
        self.attn_1 = SpatialAttention(channels)
        self.block_2 = ResidualBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, H, W]``."""
        for block in (self.block_1, self.attn_1, self.block_2):
            x = self.run(block, x)
        return x


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The options that encoder and decoder share.

    Args:
        in_channels: channels of the images.
        channels: channels at full resolution, before the multipliers.
        multipliers: channels of each resolution, in units of ``channels``.
        blocks: residual blocks of each resolution.
        dim: channels of the maps.
        dropout: dropout of the residual blocks.
    """

    in_channels: int
    channels: int
    multipliers: Sequence[int]
    blocks: int
    dim: int
    dropout: float = 0.0

    @property
    def downsampling(self) -> int:
        """Ratio of the images' side to that of the maps."""
        return 2 ** (len(self.multipliers) - 1)


class Encoder(nn.Module):
    """Encodes images as maps."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        blocks, dropout = config.blocks, config.dropout
        widths = [config.channels, *(config.channels * m for m in config.multipliers)]
        last = len(config.multipliers) - 1
        self.conv_in = nn.Conv2d(config.in_channels, config.channels, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                widths[i],
                widths[i + 1],
                blocks=blocks,
                attention=i == last,
                resample=None if i == last else _halve(widths[i + 1]),
                dropout=dropout,
            )
            for i in range(last + 1)
        )
        self.mid = Middle(widths[-1], dropout)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to ``[B, dim, h, w]``."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x)), inplace=True))


class Decoder(nn.Module):
    """Decodes maps to images, with one residual block more at each resolution than the encoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        blocks, dropout = config.blocks, config.dropout
        widths = [config.channels * m for m in config.multipliers]
        widths.append(widths[-1])
        last = len(config.multipliers) - 1
        self.conv_in = nn.Conv2d(config.dim, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], dropout)
        self.up = nn.ModuleList(
            Level(
                widths[i + 1],
                widths[i],
                blocks=blocks + 1,
                attention=i == last,
                resample=_double(widths[i]) if i else None,
                dropout=dropout,
            )
            for i in range(last + 1)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.in_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, dim, h, w]`` to images ``[B, C, H, W]``, unclamped."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x), inplace=True))


def _halve(channels: int) -> nn.Module:
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))


def _double(channels: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels, 3, padding=1))
