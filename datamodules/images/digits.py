"""`DigitsDataModule`: 1797 scanned digits that come with scikit-learn, as batches of symbol canvases."""

from __future__ import annotations

from functools import cache, partial
from typing import Literal

import numpy as np
from PIL import Image

from datamodules.images.data_module import SAMPLES, ImageDataModule
from datamodules.images.decoding import Crop
from datamodules.images.requests import ImageRequest
from datamodules.images.source import ImagesInMemory, ImageSource
from litscale.storage.splits import split_of

CLASSES = 10
SIZES = (8, 16, 32)
HELD_OUT = 0.15  # of each class, for validation, and as much for the test


class DigitsDataModule(ImageDataModule):
    """Handwritten digits (UCI, Alpaydin and Kaynak 1998): real scans of 8 x 8 pixels, without a download.

    A batch is a dict: ``canvas`` uint8 ``[B, channels, size, size]``, black (0) paper and white ink, and ``label``
    int64 ``[B]``, the digit. Grey values 0..16 are spread over 0..255.

    Of each digit, 15 % validate and 15 % test, chosen by a hash of the scan's number: always the same 1259, 269 and
    269 scans. Order and shifts in training depend on seed, epoch, position and the number of devices alone.
    """

    def __init__(
        self,
        *,
        size: Literal[8, 16, 32] = 8,
        channels: Literal[1, 3] = 1,
        batch_size: int = 64,
        labels: bool = True,
        shift: int = 0,
        num_workers: int = 0,
        seed: int = 0,
        predict: ImageRequest = SAMPLES,
    ) -> None:
        """Check the options.

        Args:
            size: side of a canvas, in pixels; a bicubic filter enlarges the scans to 16 and 32.
            channels: 1, or 3 equal ones for models of RGB images.
            batch_size: number of images in a batch on each device.
            labels: add labels to batches; false for models without classes.
            shift: move each training image by a random number of pixels, at most this many along each axis; new
                pixels are black.
            num_workers: number of processes that load batches, for each device.
            seed: seed of order and shifts.
            predict: what `litscale predict` generates.

        Raises:
            ValueError: an option is impossible; the message names it.
        """
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, not {size}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {channels}")
        if not 0 <= shift < size:
            raise ValueError(f"shift must be in 0..{size - 1}, not {shift}")
        super().__init__(
            Digits(channels),
            size=size,
            batch_size=batch_size,
            num_classes=CLASSES if labels else 0,
            num_workers=num_workers,
            seed=seed,
            predict=predict,
        )
        self.augment = partial(random_shift, most=shift) if shift else None


class Digits(ImageSource):
    """The scans, enlarged to canvases by a bicubic filter.

    Args:
        channels: 1, or 3 equal ones.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def open(self, split: str, crop: Crop) -> ImagesInMemory:
        """Return the scans of ``train``, ``val`` or ``test``, in the crop's size."""
        grey, labels = scans(split)
        if crop.size != grey.shape[1]:
            sides = (crop.size, crop.size)
            grey = np.stack(
                [np.asarray(Image.fromarray(scan).resize(sides, Image.Resampling.BICUBIC)) for scan in grey]
            )
        canvases = np.repeat(grey[:, None], self.channels, axis=1)
        return ImagesInMemory(canvases, labels)


@cache
def _all_scans() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read all scans, which takes longer than turning them into canvases.

    Returns:
        Grey values uint8 ``[n, 8, 8]``, the digits int64 ``[n]`` and the splits str ``[n]``.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    grey = np.floor(scans.images * 255 / 16 + 0.5).astype(np.uint8)
    return grey, scans.target.astype(np.int64), split_of(scans.target, val=HELD_OUT, test=HELD_OUT)


def scans(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scans of a split, uint8 ``[n, 8, 8]``, and their digits, int64 ``[n]``."""
    grey, labels, splits = _all_scans()
    return grey[splits == split], labels[splits == split]


def random_shift(canvas: np.ndarray, random: np.random.Generator, most: int) -> np.ndarray:
    """Move a canvas ``[C, H, W]`` by at most so many pixels along each axis; new pixels are 0."""
    height, width = canvas.shape[1:]
    top, left = random.integers(0, 2 * most + 1, size=2)
    padded = np.pad(canvas, ((0, 0), (most, most), (most, most)))
    return np.ascontiguousarray(padded[:, top : top + height, left : left + width])
