"""Small grey images in the IDX files of MNIST, Fashion-MNIST and their kin: found, checked, read and split."""

from __future__ import annotations

import gzip
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litscale.storage.archives import most_bytes
from litscale.storage.files import DamagedError, named_errors
from litscale.storage.splits import split_of

SIDE = 28  # pixels of an image in the files
SIZES = (16, 32)  # of a canvas
HELD_OUT = 1 / 12  # of each class of the training files, for validation: 5,000 of 60,000
UBYTE = 0x08  # the IDX code of the only type of these files
PREFIXES = {"train": "train", "val": "train", "test": "t10k"}
FORMATS = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}
DEBIAN = "/usr/share/datasets/fashion-mnist"
WAYS = (
    "torchvision.datasets.FashionMNIST(FOLDER, download=True), which makes FOLDER/FashionMNIST/raw; Debian's package "
    f"dataset-fashion-mnist, which installs {DEBIAN}; or the four files of "
    "https://github.com/zalandoresearch/fashion-mnist (data/fashion), and give their folder as the option folder or "
    "as the environment variable FASHION_MNIST"
)


@dataclass(frozen=True)
class IdxImages:
    """The four IDX files of a data set, compressed by gzip or not.

    Attributes:
        folder: Where the files lie: in the folder itself, in its ``raw``, or in the ``raw`` of a folder in it, as
            torchvision arranges them.
    """

    folder: Path

    @classmethod
    def of(cls, folder: str | None) -> IdxImages:
        """Return the files of a folder; None takes $FASHION_MNIST, else the folder of Debian's package."""
        return cls(Path(folder or os.environ.get("FASHION_MNIST") or DEBIAN).expanduser())

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the images and labels of a split.

        Of each class of the training files, one image in twelve is for validation, chosen by a hash of its number:
        always the same 5,000 of the 60,000.

        Args:
            split: ``train``, ``val`` or ``test``.

        Returns:
            Grey images, uint8 ``[n, 28, 28]``, and their classes, int64 ``[n]``.

        Raises:
            FileNotFoundError: there is no folder, or no such file in it; the message says how to get them.
            ValueError: a file is damaged, or images and labels are not equally many; or there are several data sets in
                the folder.
        """
        # 1. read both files
        prefix = PREFIXES[split]
        paths = {kind: self._find(f"{prefix}-{name}") for kind, name in FORMATS.items()}
        images, labels = read_idx(paths["images"], (SIDE, SIDE)), read_idx(paths["labels"], ())
        if len(images) != len(labels):
            raise ValueError(
                f"{paths['images']} holds {len(images)} images, {paths['labels']} {len(labels)} labels: get both "
                f"again, with {WAYS}"
            )
        # 2. take the split's share
        if split != "test":
            chosen = split_of(labels, val=HELD_OUT) == split
            images, labels = images[chosen], labels[chosen]
        return images, labels.astype(np.int64)

    def _find(self, name: str) -> Path:
        """Return the path of a file, which may end in ``.gz``; raises as `read` does."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder: there is no folder {self.folder}; get the data with {WAYS}")
        places = [self.folder, self.folder / "raw", *sorted(self.folder.glob("*/raw"))]
        found = [place for place in places if (place / name).is_file() or (place / f"{name}.gz").is_file()]
        if not found:
            raise FileNotFoundError(
                f"folder: there is neither {name} nor {name}.gz in {self.folder}, its raw or its */raw; get the data "
                f"with {WAYS}"
            )
        if len(found) > 1:
            raise ValueError(f"folder: {self.folder} holds several data sets, name one of {', '.join(map(str, found))}")
        plain = found[0] / name
        return plain if plain.is_file() else found[0] / f"{name}.gz"


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an IDX file of bytes.

    Args:
        path: The file; one that ends in ``.gz`` is compressed.
        shape: The shape that each item must have.

    Returns:
        uint8 ``[n, *shape]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no IDX file of bytes, or its items have another shape.
    """
    try:
        with named_errors(path, "damaged, or no IDX file of such images"):
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                # 1. the header: type and number of dimensions, then the dimensions, big-endian
                head = file.read(4 * (len(shape) + 2))
                if head[:4] != bytes([0, 0, UBYTE, len(shape) + 1]):
                    raise ValueError(f"it starts with {head[:4].hex(' ')}, not 00 00 08 {len(shape) + 1:02d}")
                count, *sides = np.frombuffer(head, ">u4", offset=4).tolist()
                if tuple(sides) != shape:
                    raise ValueError(f"its items are {sides}, not {list(shape)}")
                wanted = count * math.prod(shape)
                if wanted > most_bytes(path.stat().st_size):
                    raise ValueError(f"it declares {count} items, too many for a file of its size")
                # 2. the items, and nothing after them
                data = file.read(wanted)
                if len(data) != wanted or file.read(1):
                    raise ValueError(f"it does not end after the {count} items that it declares")
            return np.frombuffer(data, np.uint8).reshape(count, *shape)
    except DamagedError as error:
        raise ValueError(f"{error}: get it again, with {WAYS}") from error


def to_canvases(images: np.ndarray, size: int) -> np.ndarray:
    """Pad images with black to 32 x 32 pixels, and for 16 x 16 take the mean of each 2 x 2 of them.

    Args:
        images: uint8 ``[n, 28, 28]``.
        size: 32 or 16.

    Returns:
        uint8 ``[n, size, size]``.
    """
    border = (max(SIZES) - SIDE) // 2
    padded = np.pad(images, ((0, 0), (border, border), (border, border)))
    factor = max(SIZES) // size
    blocks = padded.reshape(len(images), size, factor, size, factor)
    # Rounded half up in whole numbers.
    return ((blocks.sum((2, 4), dtype=np.uint16) + factor**2 // 2) // factor**2).astype(np.uint8)
