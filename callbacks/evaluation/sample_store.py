"""Files of generated samples: `SampleStore` for batches of an evaluation that may be interrupted, and exports."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litscale.storage.files import atomic_file, write_atomically, write_image
from litscale.storage.npz import read_npy


class SampleStore:
    """Stores batches of samples on disk, so that an interrupted generation can resume where it stopped.

    All ranks must see the folder. Each batch is a file that is whole or absent.

    Args:
        folder: a folder for the batches of several evaluations, each of which has a folder of its own in it.
        key: all that the samples depend on, as text.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]

    def read(self, first: int, count: int) -> Tensor | None:
        """Return samples ``first`` to ``first + count - 1``, uint8 ``[count, C, H, W]``; None if they are not stored.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        path = self._path(first, count)
        return torch.from_numpy(read_npy(path)) if path.exists() else None

    def write(self, first: int, canvases: Tensor) -> None:
        """Write samples, uint8 ``[B, C, H, W]``, to a file.

        Raises:
            OSError: the file could not be written.
        """
        buffer = io.BytesIO()
        np.save(buffer, canvases.numpy())
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(first, len(canvases)), buffer.getvalue())

    def batches(self, num_samples: int, batch_size: int) -> Iterator[Tensor]:
        """Yield all samples in order, uint8 ``[B, C, H, W]``."""
        for first in range(0, num_samples, batch_size):
            path = self._path(first, min(batch_size, num_samples - first))
            yield torch.from_numpy(read_npy(path))

    def remove(self) -> None:
        """Delete the batches, and the folder of all evaluations if it is empty then."""
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _path(self, first: int, count: int) -> Path:
        return self.folder / f"{first:08d}_{count}.npy"


def write_npz(path: Path, batches: Iterator[Tensor], labels: np.ndarray | None, num_samples: int) -> Path:
    """Write images, which may need much space, batch by batch as one ``.npz`` in ADM's layout for OpenAI's evaluator.

    Args:
        path: the file.
        batches: at least one batch, uint8 ``[B, C, H, W]`` each, RGB or grey.
        labels: int64 ``[N]``, written as ``arr_1``; None for no labels.
        num_samples: number N of all images.

    Returns:
        The path; ``arr_0`` is uint8 ``[N, H, W, 3]``.

    Raises:
        OSError: the file could not be written.
    """
    with atomic_file(path) as whole, zipfile.ZipFile(whole, "w") as file:
        with file.open("arr_0.npy", "w", force_zip64=True) as array:
            for number, batch in enumerate(batches):
                images = _rgb(batch)
                if not number:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (num_samples, *images.shape[1:])}
                    np.lib.format.write_array_header_1_0(array, header)
                array.write(images.tobytes())
        if labels is not None:
            with file.open("arr_1.npy", "w") as array:
                np.lib.format.write_array(array, labels)
    return path


def write_pngs(folder: Path, batches: Iterator[Tensor]) -> Path:
    """Write images as ``000000.png``, ``000001.png``, ...

    Args:
        folder: the folder, which is emptied if it exists, or else made.
        batches: batches, uint8 ``[B, C, H, W]`` each, RGB or grey.

    Returns:
        The folder.

    Raises:
        OSError: a file could not be written.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    number = 0
    for batch in batches:
        for image in _rgb(batch):
            write_image(folder / f"{number:06d}.png", Image.fromarray(image))
            number += 1
    return folder


def _rgb(canvases: Tensor) -> np.ndarray:
    """Convert canvases to RGB images, uint8 ``[B, H, W, 3]``."""
    return canvases.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
