"""Down-sampled ImageNet (Chrabaszcz et al. 2017, arXiv 1707.08819): arrays of pixels in ``.npz`` or pickled batches.

A batch has ``data``, uint8 ``[n, 3 * side * side]``, channel after channel, and ``labels``, which count from 1 in an
order of their own, that of ``map_clsloc.txt``. Uncompressed ``.npz`` files are mapped into memory as they are; pickles
and compressed files are read once, without running code, and put into such a file in the cache.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image

from datamodules.fingerprints import of_arrays, of_files
from datamodules.image_classes import CLASS_MAPS, find_file, map_labels, read_class_map
from datamodules.image_decoding import Crop
from litscale.storage.pickles import load_plain

BATCH_NAME = re.compile(r"(train_data_batch_(?P<number>\d+)|val_data)(?P<suffix>|\.npz|\.pkl|\.pickle)")
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: signature, ..., lengths of the name and of the extra field


@dataclass(frozen=True)
class ArraySource:
    """A folder with ``train_data_batch_1``, ``train_data_batch_2``, ... and ``val_data``.

    Args:
        folder: where they are.
        labels: whether classes are wanted.
        class_map: see `image_classes.read_class_map`; None looks in the folder.
        cache_dir: where batches go that must be converted.
    """

    folder: Path
    labels: bool
    class_map: str | None
    cache_dir: Path

    def prepare(self, split: str) -> None:
        """Convert the batches of a split that cannot be mapped, one after the other, unless that is done.

        Raises:
            FileNotFoundError: a batch is missing.
            ValueError: a file is damaged, holds something else, or could run code.
            OSError: the cache cannot be written.
        """
        for source in batch_files(self.folder, split):
            target = self._mapped(source)
            if not target.is_file():
                rank_zero_info(f"Converting {source} to {target}, once")
                _write(target, **_read_batch(source))

    def class_names(self) -> list[str]:
        """The wnids of the class map, sorted.

        Raises:
            ValueError: there is none.
        """
        return sorted(self._class_map().values())

    def open(self, split: str, crop: Crop) -> ArrayImages:
        """Open the batches of a split.

        Args:
            split: ``train`` or ``val``.
            crop: makes canvases of images.

        Raises:
            FileNotFoundError: a batch is missing, or `prepare` did not run.
            ValueError: a batch holds something else, or there is no class map.
        """
        files = [self._mapped(source) for source in batch_files(self.folder, split)]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"no converted batch at {file}: call prepare_data() first; with several machines, set cache_dir to "
                    "a folder that all of them see, or prepare_data_per_node"
                )
        numbers = [_labels(file) for file in files]
        for file, found in zip(files, numbers, strict=True):
            _check(file, _map_pixels(file), found)
        labels = None
        if self.labels:
            class_map = self._class_map()
            everything = np.concatenate(numbers).astype(np.int64)
            labels = map_labels(everything, class_map, sorted(class_map.values()), self.folder)
        return ArrayImages(files, np.cumsum([0, *map(len, numbers)]), labels, crop)

    def _class_map(self) -> dict[int, str]:
        path = find_file("class_map", self.class_map, self.folder, CLASS_MAPS)
        if path is None:
            raise ValueError(
                f"the labels in {self.folder} count classes in the release's own order: give its map_clsloc.txt (or "
                "the devkit's meta.mat) as class_map, or set labels to false"
            )
        return read_class_map(path)

    def _mapped(self, source: Path) -> Path:
        """The file that is mapped: the batch itself, or one in the cache, whose name changes with the batch."""
        if _is_stored(source):
            return source
        stat = source.stat()
        described = f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        return self.cache_dir / f"arrays-{sha256(described.encode()).hexdigest()[:24]}.npz"


@dataclass
class ArrayImages:
    """The images of a split. Cheap to send to worker processes: they map the files anew.

    Attributes:
        files: uncompressed ``.npz`` files.
        starts: number of the first image of each file, and of all, int64 ``[files + 1]``.
        labels: class of each image, int64 ``[n]``, or None.
        crop: makes canvases of them.
    """

    files: list[Path]
    starts: np.ndarray
    labels: np.ndarray | None
    crop: Crop
    _pixels: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def order(self, random: np.random.Generator, ranks: int) -> np.ndarray:
        """A random order, int64 ``[n]``."""
        return random.permutation(len(self))

    def canvas(self, index: int) -> np.ndarray:
        """An image, uint8 ``[3, size, size]``; raises as `Crop` does."""
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        if file not in self._pixels:
            self._pixels[file] = _map_pixels(self.files[file])
        pixels = self._pixels[file][index - self.starts[file]]
        side = math.isqrt(len(pixels) // 3)
        image = Image.fromarray(np.ascontiguousarray(pixels.reshape(3, side, side).transpose(1, 2, 0)))
        return self.crop(image, f"image {index} of {self.files[file]}")

    def fingerprint(self) -> str:
        """Names, sizes and times of the files, the crop and the labels; OSError if a file is gone."""
        return f"{of_files(self.files)} {self.crop} {of_arrays(self.labels)}"

    def __getstate__(self) -> dict[str, object]:
        # A pickled map would carry all its bytes.
        return {**self.__dict__, "_pixels": {}}


def batch_files(folder: Path, split: str) -> list[Path]:
    """The files of a split, in the order of their numbers.

    Raises:
        FileNotFoundError: there are none, or one is missing in between.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = BATCH_NAME.fullmatch(path.name)
        if match and path.name.startswith(split):
            number = int(match["number"] or 1)
            if number not in found or match["suffix"] == ".npz":  # which may need no conversion
                found[number] = path
    if missing := sorted(set(range(1, max(found, default=1) + 1)) - set(found)):
        name = "val_data" if split == "val" else f"train_data_batch_{missing[0]}"
        raise FileNotFoundError(f"folder: there is no {name} (or {name}.npz) in {folder}")
    return [found[number] for number in sorted(found)]


def _is_stored(path: Path) -> bool:
    """Whether a file is an ``.npz`` whose arrays are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except zipfile.BadZipFile:
        return False


def _read_batch(path: Path) -> dict[str, np.ndarray]:
    """``data`` and ``labels`` of a batch."""
    batch: Any
    if path.suffix != ".npz":
        batch = load_plain(path)
    else:
        try:
            with np.load(path, allow_pickle=False) as archive:
                batch = {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: damaged, or no .npz file of plain arrays ({error}); get it again") from error
    if not isinstance(batch, dict) or not {"data", "labels"} <= set(batch):
        raise ValueError(f"{path}: it holds no data and labels, as a batch of down-sampled ImageNet does")
    data, labels = batch["data"], np.asarray(batch["labels"])
    _check(path, data, labels)
    return {"data": np.ascontiguousarray(data), "labels": labels}


def _check(path: Path, data: Any, labels: np.ndarray) -> None:
    """Raise ValueError unless these are rows of square images and their labels."""
    side = math.isqrt(data.shape[1] // 3) if isinstance(data, np.ndarray) and data.ndim == 2 else 0
    if not side or data.dtype != np.uint8 or data.shape[1] != 3 * side * side:
        raise ValueError(f"{path}: data must be uint8 [n, 3 * side * side], as in ImageNet32 and ImageNet64")
    if labels.shape != (len(data),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path}: labels must be {len(data)} whole numbers, one for each row of data")


def _write(target: Path, **arrays: np.ndarray) -> None:
    """An uncompressed ``.npz``, whole or not at all."""
    temporary = target.with_name(f".{uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            # Some file systems report a full disk only here.
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not write the cache of images ({error.strerror}); make room there, or set the option cache_dir (or "
            "the environment variable LITSCALE_CACHE) to another folder",
            str(target.parent),
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def _labels(path: Path) -> np.ndarray:
    """``labels`` of an uncompressed ``.npz``, as they are."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["labels"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: it holds no labels, as a batch of down-sampled ImageNet does") from error


def _map_pixels(path: Path) -> np.ndarray:
    """``data`` of an uncompressed ``.npz``, as a read-only map of the file."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        if "data.npy" not in archive.namelist():
            raise ValueError(f"{path}: it holds no data, as a batch of down-sampled ImageNet does")
        file.seek(archive.getinfo("data.npy").header_offset)
        _, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(name_length + extra_length, os.SEEK_CUR)
        major, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = read_header(file)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if columns_first else "C")
