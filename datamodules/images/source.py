"""`ImageSource`: where images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.images.decoding import Crop
from litscale.storage.fingerprints import of_arrays


class Images(ABC):
    """The images of a split. They are sent to worker processes by pickling.

    Attributes:
        labels: class of each image, int64 ``[n]``, or None.
    """

    labels: np.ndarray | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def canvas(self, index: int) -> np.ndarray:
        """Return an image, uint8 ``[C, H, W]``; raises `UnreadableImageError`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return text that differs wherever an image or a label does."""

    def order(self, random: np.random.Generator, ranks: int) -> np.ndarray:
        """Draw a random order, int64, of at least ``n // ranks * ranks`` images; rank r takes r, r + ranks, ..."""
        return random.permutation(len(self))


@dataclass
class ImagesInMemory(Images):
    """Images that are canvases already, in memory.

    Attributes:
        canvases: uint8 ``[n, C, size, size]``.
        labels: class of each, int64 ``[n]``, or None.
    """

    canvases: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.canvases)

    def canvas(self, index: int) -> np.ndarray:
        """Return an image, uint8 ``[C, size, size]``."""
        return self.canvases[index]

    def fingerprint(self) -> str:
        """Return a hash of all images and labels."""
        return of_arrays(self.canvases, self.labels)


class ImageSource(ABC):
    """A data set of images. To add one, subclass this and give its ``class_path`` as `ImageDataModule`'s ``source``.

    Attributes:
        channels: 3 for RGB, 1 for grey.
        test_split: the split that ``test`` evaluates.
        known_names: name of each class, where they are known before anything is read; pictures and tables show them.
    """

    channels = 3
    known_names: Sequence[str] = ()
    test_split = "test"

    @abstractmethod
    def open(self, split: str, crop: Crop) -> Images:
        """Open the images of a split.

        Args:
            split: ``train``, ``val`` or ``test``.
            crop: makes canvases of RGB images; those that are canvases of ``crop.size`` already need none.

        Raises:
            FileNotFoundError: the data, or the split, is not there.
            ValueError: the data is damaged.
        """

    def prepare(self, split: str) -> None:  # noqa: B027, most sources need nothing
        """Do what must be done once on each machine before a split is opened, such as converting files."""

    def class_names(self) -> list[str]:
        """Return the name of each class; empty if classes have only numbers."""
        return list(self.known_names)

    def __str__(self) -> str:
        """Return the name that messages use."""
        return type(self).__name__
