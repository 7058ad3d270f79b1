"""Images in parquet shards, as Hugging Face has them: ``data/train-00000-of-00294.parquet`` and so on.

A row has an ``image`` (encoded bytes, or a struct of ``bytes`` and ``path``) and a ``label``. Parquet is read a row
group at a time (100 images, as the hub writes them), so an epoch goes through row groups in random order and mixes
the rows of as many as `BLOCK_BYTES` hold; ranks share out the row groups.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.images.decoding import Crop, UnreadableImageError, decode
from datamodules.images.imagenet.shards import SPLIT_NAMES, shard_files
from datamodules.images.source import Images, ImageSource
from datamodules.messages import abridged
from litscale.storage.files import DamagedError, named_errors
from litscale.storage.fingerprints import of_arrays, of_files
from litscale.storage.parquet import read_column, shard_header

BLOCK_BYTES = 128 * 2**20  # of encoded images that are mixed
KEPT_BYTES = 2 * BLOCK_BYTES  # that a worker keeps: two blocks, as batches may reach into the next one


@dataclass(frozen=True)
class ParquetSource(ImageSource):
    """A folder with shards.

    Args:
        folder: where they are, see `shard_files`.
        labels: whether classes are wanted.
        shards: split -> pattern of its shards; None = found in the folder.
    """

    folder: Path
    labels: bool
    shards: Mapping[str, str] | None = None
    test_split = "val"

    def class_names(self) -> list[str]:
        """Return the names that the shards give their classes; empty if they give none.

        Raises:
            ValueError: a shard is damaged; the message names it.
        """
        for split in self.shards or SPLIT_NAMES:
            for shard in self._files(split)[:1]:
                with named_errors(shard, "its metadata do not describe images as the hub's do"):
                    described = json.loads(shard_header(shard).metadata.get(b"huggingface", b"{}"))
                    names = described.get("info", {}).get("features", {}).get("label", {}).get("names")
                    if names:
                        return [str(name) for name in names]
        return []

    def open(self, split: str, crop: Crop) -> ParquetImages:
        """Read the sizes of the row groups and the labels of a split.

        Args:
            split: ``train`` or ``val``.
            crop: makes canvases of images.

        Raises:
            FileNotFoundError: there are no shards.
            ValueError: a shard is damaged or lacks a column.
        """
        files = self._files(split)
        if not files:
            raise FileNotFoundError(f"folder: there is no {split}-*.parquet in {self.folder} or the data folder in it")
        groups, rows, size, labels = [], [], 0, []
        for number, path in enumerate(files):
            header = shard_header(path)
            if missing := {"image", "label"} - set(header.columns) - (set() if self.labels else {"label"}):
                raise ValueError(
                    f"{path}: cannot be read as a parquet shard of images (it has no column "
                    f"{abridged(sorted(missing))}, but {abridged(header.columns)})"
                )
            if self.labels:
                with named_errors(path, "its labels are not whole numbers"):
                    labels.append(read_column(path, "label").to_numpy().astype(np.int64))
            groups += [(number, group) for group in range(len(header.rows))]
            rows += header.rows
            size += header.size
        if not sum(rows):
            raise FileNotFoundError(f"folder: the {split} shards in {self.folder} have no rows")
        block = max(1, BLOCK_BYTES * sum(rows) // max(size, 1))
        everything = np.concatenate(labels) if labels else None
        return ParquetImages(
            files=files,
            groups=np.array(groups),
            starts=np.cumsum([0, *rows]),
            block=block,
            labels=everything,
            crop=crop,
        )

    def _files(self, split: str) -> list[Path]:
        return shard_files(self.folder, split, "parquet", self.shards)


@dataclass(kw_only=True)
class ParquetImages(Images):
    """The images of a split.

    Attributes:
        files: the shards.
        groups: shard, and number in it, of each row group, int64 ``[g, 2]``.
        starts: number of the first image of each row group, and of all, int64 ``[g + 1]``.
        block: number of images of a rank that are shuffled among each other.
        labels: class of each image, int64 ``[n]``, or None.
        crop: makes canvases of them.
    """

    files: list[Path]
    groups: np.ndarray
    starts: np.ndarray
    block: int
    labels: np.ndarray | None
    crop: Crop
    _kept: OrderedDict[int, pa.ChunkedArray | str] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def order(self, random: np.random.Generator, ranks: int) -> np.ndarray:
        """Draw a random order in which every ``ranks``-th image is from the same row groups for a while.

        Returns:
            int64 ``[n // ranks * ranks]``; rank r takes the positions r, r + ranks, ...
        """
        shuffled = random.permutation(len(self.groups))
        rows = np.concatenate([np.arange(self.starts[group], self.starts[group + 1]) for group in shuffled])
        each = len(rows) // ranks
        shares = rows[: each * ranks].reshape(ranks, each)
        for first in range(0, each, self.block):
            shares[:, first : first + self.block] = random.permuted(shares[:, first : first + self.block], axis=1)
        return shares.T.reshape(-1)

    def canvas(self, index: int) -> np.ndarray:
        """Return an image, uint8 ``[3, size, size]``; raises as `decode` and `Crop` do.

        Raises:
            UnreadableImageError: its row group cannot be read, or holds no bytes for it.
        """
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = int(index - self.starts[group])
        shard, number = self.groups[group]
        place = f"row group {number} of {self.files[shard]}"
        column = self._column(group)
        if isinstance(column, str):  # which names the file
            raise UnreadableImageError(f"row {row} of row group {number}: {column}", place=place)
        name = f"row {row} of {place}"
        value: Any = column[row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise UnreadableImageError(f"{name}: has no image bytes")
        return self.crop(decode(data, name), name)

    def fingerprint(self) -> str:
        """Return names, sizes and times of the shards, the crop and the labels; raises OSError if a shard is gone."""
        return f"{of_files(self.files)} {self.crop} {of_arrays(self.labels)}"

    def _column(self, group: int) -> pa.ChunkedArray | str:
        """Return the images of a row group, or why it cannot be read; the latest row groups are kept in memory."""
        if group not in self._kept:
            shard, number = self.groups[group]
            try:
                self._kept[group] = read_column(self.files[shard], "image", int(number))
            except (DamagedError, FileNotFoundError) as error:
                self._kept[group] = str(error)
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": OrderedDict()}


def _size(column: pa.ChunkedArray | str) -> int:
    """Return the bytes of a row group's images, 0 where it could not be read."""
    return 0 if isinstance(column, str) else column.nbytes
