"""From image files to canvases, as ADM, DiT and FractalGen do it.

What is done with what a canvas cannot hold:

- **Orientation**: as stored; the EXIF tag is not obeyed, because the published pipelines do not.
- **Colours**: Pillow's conversion to RGB: grey is repeated, palettes are looked up, CMYK is converted without a colour
  profile, transparency is dropped. An animation is its first frame.
- **16-bit grey** is scaled to 8 bits (65535 becomes 255). Pillow's own conversion, which the published pipelines would
  meet, clips everything above 255 to white; ImageNet has no such file.
- **Other formats** than JPEG, PNG, GIF, BMP, WebP, TIFF and PPM, and images of more than 2^28 pixels, count as
  unreadable, whatever the file is called.
- **Floating-point images** have no known range: they count as unreadable.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".jpeg", ".jpg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # Pillow looks at the content, not at the suffix
MOST_PIXELS = 2**28  # of an image that is opened, or enlarged (about 0.8 GB)


class UnreadableImageError(ValueError):
    """One image cannot be read; the message names it.

    Args:
        message: what is wrong with it.
        place: what else cannot be read with it, such as the page of a shard; by default the image is alone.
    """

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.place = message if place is None else place


def decode(source: Path | bytes, name: str) -> Image.Image:
    """Decode an image.

    Args:
        source: a file, or what is in it.
        name: what messages call it.

    Returns:
        An RGB image.

    Raises:
        UnreadableImageError: no image of `FORMATS`, a damaged one, or one of more than `MOST_PIXELS`.
    """
    try:
        # Other formats, such as EPS, would start other programs.
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS}")
            image.load()
            if image.mode == "F":
                raise ValueError("it holds floating-point numbers of unknown range")
            if image.mode.startswith("I"):
                deep = np.asarray(image).astype(np.int64).clip(0, 65535)
                return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    # A damaged file can raise whatever Pillow's decoders raise.
    except Exception as error:
        raise UnreadableImageError(f"{name}: cannot be read as an image ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """Return what an error says, without the file or an address in memory, because messages name the image already."""
    if isinstance(error, UnidentifiedImageError):
        return f"damaged, or none of {', '.join(FORMATS)}"
    return str(getattr(error, "strerror", None) or error)


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Resize an image to a short side of ``size``, as published with ADM (Dhariwal and Nichol 2021) and used by DiT.

    It is halved with a box filter while its short side is at least twice ``size``, and resized with a bicubic one. A
    smaller image is enlarged by the same rule.

    Args:
        image: of any size and of 8 bits per channel.
        size: in pixels.

    Returns:
        uint8 ``[height, width, C]``, without the last axis for one channel.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    return np.asarray(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC))


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """Return the centre square of :func:`resized`, uint8 ``[size, size, C]``, without the last axis for one channel."""
    pixels = resized(image, size)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


@dataclass(frozen=True)
class Crop:
    """Turns images into canvases.

    Args:
        size: side of a canvas, in pixels.
        upsample: enlarge smaller images, as the published pipelines do, rather than raise.
        whole: leave the long side as it is, for :class:`CutAndFlip` to cut.
    """

    size: int
    upsample: bool
    whole: bool = False

    def __call__(self, image: Image.Image, name: str) -> np.ndarray:
        """Turn an RGB image into a canvas.

        Args:
            image: of any size.
            name: what messages call it.

        Returns:
            uint8 ``[3, size, size]``, or with ``whole`` one side longer.

        Raises:
            ValueError: it is smaller than the canvas, and ``upsample`` is not set.
            UnreadableImageError: it is so narrow that it cannot be enlarged.
        """
        short, long = min(image.size), max(image.size)
        if short < self.size and not self.upsample:
            raise ValueError(
                f"size: {name} is {image.width} x {image.height} pixels, smaller than the canvas of {self.size}; set "
                "upsample to true to enlarge such images, as the published pipelines do, or lower size"
            )
        if short < self.size and long * self.size**2 > MOST_PIXELS * short:
            raise UnreadableImageError(f"{name}: {image.width} x {image.height} pixels are too narrow to enlarge")
        cut = resized if self.whole else centre_crop
        return cut(image, self.size).transpose(2, 0, 1).copy()


@dataclass(frozen=True)
class CutAndFlip:
    """Changes a training canvas at random.

    Args:
        size: side of the square to cut at a random place, in pixels.
        flip: mirror left to right with probability one half.
    """

    size: int
    flip: bool

    def __call__(self, canvas: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Map uint8 ``[C, H, W]`` with no side below ``size`` to ``[C, size, size]``."""
        if canvas.shape[1:] != (self.size, self.size):
            top, left = (int(random.integers(side - self.size, endpoint=True)) for side in canvas.shape[1:])
            canvas = canvas[:, top : top + self.size, left : left + self.size]
        if self.flip and random.random() < 0.5:
            canvas = canvas[..., ::-1]
        return np.ascontiguousarray(canvas)
