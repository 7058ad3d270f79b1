"""What symbols mean: one table of alphabets with two views, planes for the tokenizer and features for fractal levels.

Dimensions: B canvases, R patches, C channels, P planes, A symbols of the alphabet, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.precision import FullPrecision

_IMAGES = ("rgb", "gray")
CODECS = (*_IMAGES, "binary", "velocity", "onset_hold")
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Codec:
    """The alphabet of a canvas, and the view of it as planes, whose values are in [-1, 1].

    - ``rgb``, ``gray``: a plane for each channel, 0 as -1 and 255 as 1.
    - ``binary``: a plane, -1 for silence and 1 for what sounds.
    - ``velocity``: a plane, -1 for silence, else the bin over the number of bins, so that soft notes are far from
      silence.
    - ``onset_hold``: two planes: where notes start, as for ``velocity``; and 1 where a note is held, -1 elsewhere.

    Args:
        name: ``rgb`` (three channels of 0..255), ``gray`` (one channel of 0..255), or an encoding of piano rolls:
            ``binary``, ``velocity``, ``onset_hold`` (see ``litscale.music.RollFormat``).
        velocity_bins: velocity bins of ``velocity`` and ``onset_hold``, 1..127.

    Raises:
        ValueError: unknown name, or bins out of range.
    """

    name: str
    velocity_bins: int = 127

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}, not {self.name!r}")
        if not 1 <= self.velocity_bins <= 127:
            raise ValueError(f"velocity_bins must be in 1..127, not {self.velocity_bins}")

    @property
    def is_image(self) -> bool:
        """Whether the symbols are pixels."""
        return self.name in _IMAGES

    @property
    def channels(self) -> int:
        """Channels C of the canvas."""
        return 3 if self.name == "rgb" else 1

    @property
    def planes(self) -> int:
        """Number of planes P."""
        return 2 if self.name == "onset_hold" else self.channels

    @property
    def bins(self) -> int:
        """Number of symbols, 1..bins, of notes that start (``binary``: of cells that sound); for rolls only."""
        return 1 if self.name == "binary" else self.velocity_bins

    @property
    def alphabet(self) -> int:
        """Number of symbols A."""
        return 256 if self.is_image else 1 + self.bins + (self.name == "onset_hold")

    def to_planes(self, symbols: Tensor) -> Tensor:
        """Convert symbols, integers ``[B, C, H, W]``, to planes, float32 ``[B, P, H, W]``."""
        values = symbols.float()
        if self.is_image:
            return values / 127.5 - 1
        hold = values > self.bins
        struck = torch.where((values > 0) & ~hold, values / self.bins, -1)
        return torch.cat([struck, hold.float() * 2 - 1], dim=1) if self.name == "onset_hold" else struck

    def to_symbols(self, planes: Tensor) -> Tensor:
        """Convert planes ``[B, P, H, W]`` of any values to the nearest symbols, uint8 ``[B, C, H, W]``."""
        planes = planes.float().clamp(-1, 1)
        if self.is_image:
            return planes.add(1).mul(127.5).round().byte()
        struck = planes[:, :1]
        nearest = (struck * self.bins).round().clamp(1, self.bins)
        symbols = nearest.masked_fill(struck < (1 / self.bins - 1) / 2, 0)
        if self.name == "onset_hold":
            hold = planes[:, 1:]
            symbols = symbols.masked_fill((hold > 0) & (hold >= struck), self.bins + 1)
        return symbols.byte()


class SymbolFeatures(FullPrecision):
    """Looks up the features of symbols, and computes the guiding values of patches, from tables.

    Colours are normalised with the ImageNet mean and deviation, gray values are -1..1, and a symbol of a roll says
    whether a note starts, whether one is held, and how loud it starts (``binary``: only whether it sounds). The tables
    and the means taken of them stay in float32, because half precision would change guiding values.

    Args:
        codec: what the symbols mean.

    Attributes:
        count: F, features per cell over all channels.
    """

    table: Tensor  # [C A, F / C]
    first: Tensor  # int64 [C, 1, 1], row of the table where a channel begins
    tone: Tensor  # [C, A], what the guiding value averages
    shift: Tensor  # [C]
    scale: Tensor  # [C]

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        values = torch.arange(codec.alphabet, dtype=torch.float32)
        shift, scale = torch.zeros(1, dtype=torch.float32), torch.ones(1, dtype=torch.float32)
        if codec.is_image:
            mean, std = (RGB_MEAN, RGB_STD) if codec.name == "rgb" else ([0.5], [0.5])
            shift, scale = (torch.tensor(numbers, dtype=torch.float32) for numbers in (mean, std))
            tone = values.div(255).expand(codec.channels, -1)
            table = ((tone - shift[:, None]) / scale[:, None])[..., None]
        else:
            tone = (values > 0).float()[None]
            held = (values > codec.bins).float()
            struck = tone[0] - held
            parts = [struck] if codec.name == "binary" else [struck, held, struck * values / codec.bins]
            table = torch.stack(parts, dim=-1)[None]
        self.count = codec.channels * table.shape[-1]
        first = codec.alphabet * torch.arange(codec.channels)[:, None, None]
        for name, value in (
            ("table", table.flatten(0, 1)),
            ("first", first),
            ("tone", tone),
            ("shift", shift),
            ("scale", scale),
        ):
            self.register_buffer(name, value.contiguous(), persistent=False)

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the features of symbols.

        Args:
            symbols: integers ``[B, C, H, W]``.

        Returns:
            float32 ``[B, F, H, W]``.
        """
        row = symbols.long()
        if self.codec.channels > 1:
            row = row + self.first
        features = F.embedding(row, self.table)  # [B, C, H, W, F / C]
        return features[..., 0] if features.shape[-1] == 1 else features.movedim(-1, 2).flatten(1, 2)

    def of_patches(self, patches: Tensor) -> Tensor:
        """Return the features of patches, float32 ``[R, n, F h w]``, from their symbols ``[R, n, C, h, w]``."""
        return self(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]).flatten(2)

    def guide_alphabet(self, cells: int) -> int:
        """Return how many guiding values a patch can have: 256 colours, or ``cells + 1`` densities, at most 256."""
        return 256 if self.codec.is_image else min(cells, 255) + 1

    def guide(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the guiding value of patches: the mean colour, or the share of cells that sound.

        FractalGen feeds the exact mean while it trains and the drawn level while it samples.

        Args:
            patch: symbols ``[R, C, h, w]``.

        Returns:
            The level to predict, int64 ``[R, C]``, and the exact mean as features, float32 ``[R, C]``.
        """
        channel = torch.arange(self.codec.channels, device=patch.device)[:, None, None]
        mean = self.tone[channel, patch.long()].mean((2, 3))
        top = self.guide_alphabet(patch.shape[2] * patch.shape[3]) - 1
        return (mean * top).round().long(), (mean - self.shift) / self.scale

    def guide_features(self, level: Tensor, cells: int) -> Tensor:
        """Convert drawn levels of guiding values, int64 ``[R, C]``, to features, float32 ``[R, C]``."""
        return (level.float() / (self.guide_alphabet(cells) - 1) - self.shift) / self.scale
