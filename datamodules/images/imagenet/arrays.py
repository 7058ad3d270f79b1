"""Down-sampled ImageNet (Chrabaszcz et al. 2017, arXiv 1707.08819): arrays of pixels in ``.npz`` or pickled batches.

A batch has ``data``, uint8 ``[n, 3 * side * side]``, channel after channel, and ``labels``, which count from 1 in an
order of their own, that of ``map_clsloc.txt``. Uncompressed ``.npz`` files are mapped into memory as they are; pickles
and compressed files are read once, without running code, and put into such a file in the cache.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from PIL import Image

from datamodules.images.decoding import Crop, UnreadableImageError
from datamodules.images.imagenet.classes import CLASS_MAPS, find_file, map_labels, read_class_map
from datamodules.images.source import Images, ImageSource
from datamodules.messages import abridged
from litscale.storage.caches import writing_cache
from litscale.storage.files import DamagedError, atomic_file, write_atomically
from litscale.storage.fingerprints import of_arrays, of_files
from litscale.storage.npz import is_stored, map_npz, npz_names, read_npz
from litscale.storage.pickles import load_plain

BATCH_NAME = re.compile(r"(train_data_batch_(?P<number>\d+)|val_data)(?P<suffix>|\.npz|\.pkl|\.pickle)")


@dataclass(frozen=True, kw_only=True)
class ArraySource(ImageSource):
    """A folder with ``train_data_batch_1``, ``train_data_batch_2``, ... and ``val_data``.

    Args:
        folder: where they are.
        labels: whether classes are wanted.
        class_map: see `read_class_map`; None looks in the folder.
        cache_dir: where batches go that must be converted.
        strict: raise for a damaged batch, rather than leave it out.
    """

    folder: Path
    labels: bool
    class_map: str | None
    cache_dir: Path
    strict: bool = False
    test_split = "val"

    def prepare(self, split: str) -> None:
        """Convert the batches of a split that cannot be mapped, one after the other, unless that is done.

        For a damaged batch, the cache holds the reason instead.

        Raises:
            FileNotFoundError: a batch is missing.
            ValueError: a file holds something else, or could run code; or it is damaged, and ``strict``.
            OSError: the cache cannot be written.
        """
        for source in batch_files(self.folder, split):
            target = self._mapped(source)
            if not target.is_file():
                rank_zero_info(f"Converting {source} to {target}, once")
                try:
                    content = _read_batch(source)
                except DamagedError as error:
                    if self.strict:
                        raise _strictly([str(error)]) from error
                    with writing_cache(target.parent, "images"):
                        write_atomically(_reason(target), str(error).encode())
                    continue
                with writing_cache(target.parent, "images"), atomic_file(target) as file:
                    np.savez(file, data=content["data"], labels=content["labels"])

    def class_names(self) -> list[str]:
        """Return the wnids of the class map, sorted.

        Raises:
            ValueError: there is no class map.
        """
        return sorted(self._class_map().values())

    def open(self, split: str, crop: Crop) -> ArrayImages:
        """Open the batches of a split.

        Damaged batches are left out, and a warning names them.

        Args:
            split: ``train`` or ``val``.
            crop: makes canvases of images.

        Raises:
            FileNotFoundError: a batch is missing, or `prepare` did not run.
            ValueError: a batch holds something else, there is no class map, all batches are damaged, or one is and
                ``strict`` is set.
        """
        # 1. map the batches that can be read
        batches, files, numbers, damaged = [], [], [], []
        for batch in batch_files(self.folder, split):
            file = self._mapped(batch)
            try:
                classes = _open(file)
            except DamagedError as error:
                damaged.append(str(error))
                continue
            batches.append(batch)
            files.append(file)
            numbers.append(classes.astype(np.int64))
        # 2. refuse the others, or name them
        if damaged and self.strict:
            raise _strictly(damaged)
        if damaged and not files:
            raise ValueError(f"none of the {split} batches in {self.folder} can be read: {abridged(damaged)}")
        if damaged:
            rank_zero_warn(
                f"{len(damaged)} of {len(files) + len(damaged)} {split} batches cannot be read, and their images are "
                f"left out: {abridged(damaged)}"
            )
        # 3. number the classes as all data sets do
        labels = None
        if self.labels:
            class_map = self._class_map()
            wnids = sorted(class_map.values())
            mapped = [map_labels(each, class_map, wnids, batch) for each, batch in zip(numbers, batches, strict=True)]
            labels = np.concatenate(mapped)
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
        """Return the file to map: the batch itself, or one in the cache, whose name changes with the batch."""
        if is_stored(source):
            return source
        stat = source.stat()
        described = f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        return self.cache_dir / f"arrays-{sha256(described.encode()).hexdigest()[:24]}.npz"


@dataclass
class ArrayImages(Images):
    """The images of a split. Cheap to send to worker processes: each of them maps the files itself.

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

    def canvas(self, index: int) -> np.ndarray:
        """Return an image, uint8 ``[3, size, size]``; raises as `Crop` does.

        Raises:
            UnreadableImageError: the file is no longer what it was.
        """
        file = int(np.searchsorted(self.starts, index, side="right")) - 1
        if file not in self._pixels:
            try:
                self._pixels[file] = map_npz(self.files[file], "data")
            except (DamagedError, FileNotFoundError) as error:
                raise UnreadableImageError(f"image {index}: {error}", place=str(self.files[file])) from error
        pixels = self._pixels[file][index - self.starts[file]]
        side = math.isqrt(len(pixels) // 3)
        image = Image.fromarray(np.ascontiguousarray(pixels.reshape(3, side, side).transpose(1, 2, 0)))
        return self.crop(image, f"image {index} of {self.files[file]}")

    def fingerprint(self) -> str:
        """Return names, sizes and times of the files, the crop and the labels; raises OSError if a file is gone."""
        return f"{of_files(self.files)} {self.crop} {of_arrays(self.labels)}"

    def __getstate__(self) -> dict[str, object]:
        # A pickled map would carry all its bytes.
        return {**self.__dict__, "_pixels": {}}


def batch_files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split, in the order of their numbers.

    Raises:
        FileNotFoundError: there are none, or one is missing in between.
    """
    batches: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = BATCH_NAME.fullmatch(path.name)
        if match and path.name.startswith(split):
            number = int(match["number"] or 1)
            if number not in batches or match["suffix"] == ".npz":  # which may need no conversion
                batches[number] = path
    if missing := sorted(set(range(1, max(batches, default=1) + 1)) - set(batches)):
        name = "val_data" if split == "val" else f"train_data_batch_{missing[0]}"
        raise FileNotFoundError(f"folder: there is no {name} (or {name}.npz) in {folder}")
    return [batches[number] for number in sorted(batches)]


def _read_batch(path: Path) -> dict[str, np.ndarray]:
    """Read ``data`` and ``labels`` of a batch.

    Raises:
        ValueError: the file holds something else.
    """
    batch: Any = read_npz(path, ("data", "labels")) if path.suffix == ".npz" else load_plain(path)
    if not isinstance(batch, dict) or not {"data", "labels"} <= set(batch):
        raise ValueError(f"{path}: it holds no data or no labels, so it is not a batch of down-sampled ImageNet")
    data, labels = batch["data"], batch["labels"]
    if isinstance(labels, list) and all(isinstance(label, int) and abs(label) < 2**63 for label in labels):
        labels = np.array(labels, np.int64)
    _check(path, data, labels)
    return {"data": np.ascontiguousarray(data), "labels": labels}


def _open(path: Path) -> np.ndarray:
    """Read the labels of a batch that can be mapped, as the file holds them.

    Raises:
        DamagedError: it cannot be read, or could not be read for the conversion.
        FileNotFoundError: it was not converted.
        ValueError: it holds something else.
    """
    if not path.is_file():
        if _reason(path).is_file():
            raise DamagedError(_reason(path).read_text(encoding="utf-8"))
        raise FileNotFoundError(
            f"no converted batch at {path}: call prepare_data() first; with several machines, set cache_dir to a "
            "folder that all of them see, or prepare_data_per_node"
        )
    if missing := {"data", "labels"} - set(npz_names(path)):
        raise ValueError(
            f"{path}: it holds no {abridged(sorted(missing))}, so it is not a batch of down-sampled ImageNet"
        )
    labels = read_npz(path, ("labels",))["labels"]
    _check(path, map_npz(path, "data"), labels)
    return labels


def _reason(target: Path) -> Path:
    """Return the file that says why there is no converted batch."""
    return target.with_suffix(".txt")


def _strictly(damaged: list[str]) -> ValueError:
    """Return the error of strict reading; its message tells the user what to do."""
    return ValueError(f"strict: {abridged(damaged)}; get it again, or set strict to false to do without its images")


def _check(path: Path, data: Any, labels: Any) -> None:
    """Raise ValueError unless these are rows of square images and their labels."""
    side = math.isqrt(data.shape[1] // 3) if isinstance(data, np.ndarray) and data.ndim == 2 else 0
    if not side or data.dtype != np.uint8 or data.shape[1] != 3 * side * side:
        raise ValueError(f"{path}: data must be uint8 [n, 3 * side * side], as in ImageNet32 and ImageNet64")
    if (
        not isinstance(labels, np.ndarray)
        or labels.shape != (len(data),)
        or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise ValueError(f"{path}: labels must be {len(data)} whole numbers, one for each row of data")
