"""Codecs: symbols to float features for patch embedding, and the guiding value of a patch.

A codec is a table, so that every alphabet takes the same path. Suffixes: C channels, A alphabet, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litscale.models.precision import FullPrecision

IMAGE_CODECS = ("rgb", "gray")
CODECS = (*IMAGE_CODECS, "binary", "velocity", "onset_hold")
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)


class Codec(FullPrecision):
    """What a model reads from symbols, and the alphabet that its leaf predicts.

    Its tables and the means that it takes stay in float32: in half precision a guiding value would be another one.

    Args:
        name: ``rgb`` (three channels of 0..255, normalised with the ImageNet mean and deviation), ``gray`` (one channel
            of 0..255, as -1..1), or an encoding of piano rolls: ``binary``, ``velocity``, ``onset_hold`` (see
            ``music.RollFormat``).
        velocity_bins: velocity bins of the roll encodings, 1..127.

    Attributes:
        channels: C, channels of the canvas.
        alphabet: A, number of symbols.
        features: F, features per cell over all channels.

    Raises:
        ValueError: unknown name, or bins out of range.
    """

    table: Tensor  # [C, A, F / C]
    tone: Tensor  # [C, A], what the guiding value averages
    shift: Tensor  # [C]
    scale: Tensor  # [C]

    def __init__(self, name: str, velocity_bins: int = 127) -> None:
        super().__init__()
        if name not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}, not {name!r}")
        if not 1 <= velocity_bins <= 127:
            raise ValueError(f"velocity_bins must be in 1..127, not {velocity_bins}")
        self.name = name
        self.velocity_bins = velocity_bins
        shift, scale = torch.zeros(1, dtype=torch.float32), torch.ones(1, dtype=torch.float32)
        if name in IMAGE_CODECS:
            mean, std = (RGB_MEAN, RGB_STD) if name == "rgb" else ([0.5], [0.5])
            shift, scale = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
            tone = torch.arange(256, dtype=torch.float32).div(255).expand(len(mean), 256)
            table = ((tone - shift[:, None]) / scale[:, None])[..., None]
        elif name == "binary":
            tone = torch.tensor([[0.0, 1.0]], dtype=torch.float32)
            table = tone[..., None]
        else:
            symbols = velocity_bins + (2 if name == "onset_hold" else 1)
            values = torch.arange(symbols, dtype=torch.float32)
            held = (values > velocity_bins).float()
            struck = (values > 0).float() - held
            # struck, held and loudness: three numbers say all that a symbol means
            table = torch.stack([struck, held, struck * values / velocity_bins], dim=-1)[None]
            tone = (values > 0).float()[None]
        self.channels, self.alphabet = tone.shape
        self.features = self.channels * table.shape[-1]
        for key, value in (("table", table), ("tone", tone), ("shift", shift), ("scale", scale)):
            self.register_buffer(key, value.contiguous(), persistent=False)

    def forward(self, symbols: Tensor) -> Tensor:
        """Features of symbols.

        Args:
            symbols: integers ``[B, C, H, W]``.

        Returns:
            float32 ``[B, F, H, W]``.
        """
        channel = torch.arange(self.channels, device=symbols.device)[:, None, None]
        found = self.table[channel, symbols.long()]  # [B, C, H, W, F / C]
        return found.movedim(-1, 2).flatten(1, 2)

    def guide_alphabet(self, cells: int) -> int:
        """Number of guiding values of a patch of ``cells`` cells: 256 levels of colour, or each possible density."""
        return 256 if self.name in IMAGE_CODECS else min(cells, 255) + 1

    def guide(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """The guiding value of patches: mean colour, or the share of cells that sound.

        FractalGen feeds the exact mean while it trains and the drawn level while it samples.

        Args:
            patch: symbols ``[R, C, h, w]``.

        Returns:
            The level to predict, int64 ``[R, C]``, and the exact mean as features, float32 ``[R, C]``.
        """
        channel = torch.arange(self.channels, device=patch.device)[:, None, None]
        mean = self.tone[channel, patch.long()].mean((2, 3))
        top = self.guide_alphabet(patch.shape[2] * patch.shape[3]) - 1
        return (mean * top).round().long(), (mean - self.shift) / self.scale

    def guide_features(self, level: Tensor, cells: int) -> Tensor:
        """Features of drawn guiding levels, int64 ``[R, C]`` -> float32 ``[R, C]``."""
        return (level.float() / (self.guide_alphabet(cells) - 1) - self.shift) / self.scale
