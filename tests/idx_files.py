"""IDX files of small grey images, as MNIST and its kin have them."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def picture(number: int, label: int) -> np.ndarray:
    """A picture of a class: a bright bar whose place tells the class, on a ground that tells the number."""
    pixels = np.full((28, 28), number % 240, np.uint8)
    pixels[2 * label + 4 : 2 * label + 6, 3:25] = 250
    return pixels


def write_idx(folder: Path, counts: dict[str, int] | None = None, classes: int = 10, packed: bool = True) -> Path:
    """The four files of a data set, in which image k is of class k modulo the number of classes.

    Args:
        folder: is made.
        counts: images of the training files (``train``) and the test files (``t10k``); by default 120 and 20.
        classes: number of classes.
        packed: compressed by gzip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (counts or {"train": 120, "t10k": 20}).items():
        labels = np.arange(count) % classes
        images = np.array([picture(number, int(label)) for number, label in enumerate(labels)])
        for name, content in (("images-idx3-ubyte", idx(images)), ("labels-idx1-ubyte", idx(labels))):
            path = folder / f"{prefix}-{name}"
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                path.write_bytes(content)
    return folder
