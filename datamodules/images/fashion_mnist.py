"""`FashionMNISTDataModule`: Fashion-MNIST, or another set of IDX files of that shape, as batches of symbol canvases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from datamodules.images.data_module import ImageDataModule
from datamodules.images.decoding import Crop
from datamodules.images.source import ImagesInMemory, ImageSource
from litscale.storage.idx_images import SIZES, IdxImages, to_canvases

CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


class FashionMNISTDataModule(ImageDataModule):
    """Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 70,000 grey pictures of clothes in ten classes.

    A batch is a dict: ``canvas`` uint8 ``[B, channels, size, size]``, black (0) around the piece, and ``label`` int64
    ``[B]``. The pictures of 28 x 28 pixels are padded with black to 32 x 32, and for 16 x 16 averaged over areas of
    2 x 2.

    The training files are split into 55,000 pictures that train and 5,000 that validate, always the same ones and 500
    of each class; the 10,000 of the other files test. MNIST, KMNIST and other IDX files of pictures of 28 x 28 pixels
    are read as well, see ``class_names``.
    """

    classes_option = "class_names"

    def __init__(
        self,
        folder: str | None = None,
        *,
        size: Literal[16, 32] = 32,
        channels: Literal[1, 3] = 1,
        class_names: Sequence[str] = CLASSES,
        labels: bool = True,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        """Check the options; nothing is read yet, and nothing at all to predict.

        Args:
            folder: Folder with the four IDX files, compressed or not, or the folder that torchvision downloaded
                into (they are in its FashionMNIST/raw). Null takes the environment variable FASHION_MNIST, or else
                /usr/share/datasets/fashion-mnist, where Debian's package dataset-fashion-mnist puts the files.
            size: Side of a canvas, in pixels.
            channels: 1, or 3 equal ones for models of RGB images.
            class_names: Name of each class, in the order of the labels; the data must have no more classes. Give
                other names for MNIST and other sets.
            labels: Add labels to batches; false for models without classes.
            batch_size: Number of images in a batch on each device.
            **options: Options of `ImageDataModule`.

        Raises:
            ValueError: an option is impossible; the message names it.
        """
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, not {size}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {channels}")
        if not class_names:
            raise ValueError("class_names is empty; give a name for each class, or set labels to false")
        super().__init__(
            FashionMNIST(IdxImages.of(folder), channels, class_names),
            size=size,
            num_classes=len(class_names) if labels else 0,
            batch_size=batch_size,
            **options,
        )


class FashionMNIST(ImageSource):
    """The pictures of IDX files.

    Args:
        files: Where they are.
        channels: 1, or 3 equal ones.
        names: Name of each class.
    """

    def __init__(self, files: IdxImages, channels: int, names: Sequence[str]) -> None:
        self.files, self.channels, self.known_names = files, channels, list(names)

    def open(self, split: str, crop: Crop) -> ImagesInMemory:
        """Return the pictures of ``train``, ``val`` or ``test`` in the crop's size; raises as `IdxImages.read` does."""
        images, labels = self.files.read(split)
        canvases = to_canvases(images, crop.size)[:, None]
        return ImagesInMemory(np.repeat(canvases, self.channels, axis=1), labels)

    def __str__(self) -> str:
        """Return the path of the folder."""
        return str(self.files.folder)
