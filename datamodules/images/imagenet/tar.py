"""Images in tar shards, in the layout of webdataset: ``KEY.jpg`` and ``KEY.cls`` (or ``KEY.json``) are a sample.

The shards are indexed once: where each image begins, its size and its class. An image is then one read at a random
place of a large file, so order, sharing over devices and resuming are those of all other data, to the image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from datamodules.images.decoding import SUFFIXES, Crop, UnreadableImageError, decode
from datamodules.images.imagenet.shards import shard_files
from datamodules.images.source import Images, ImageSource
from litscale.progress import progress
from litscale.storage import tar
from litscale.storage.caches import writing_cache
from litscale.storage.files import DamagedError, atomic_file
from litscale.storage.fingerprints import of_arrays, of_files
from litscale.storage.npz import read_npz
from litscale.storage.tar import read_member, tar_members

THREADS = 16  # that index shards: on network file systems each header is a wait
CLASS_NAMES = "classnames.txt"
_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # key and ending, as webdataset takes them


@dataclass(frozen=True)
class TarSource(ImageSource):
    """A folder with tar shards.

    Args:
        folder: where they are, see `shard_files`.
        labels: whether classes are wanted.
        cache_dir: where the index goes.
        shards: split -> pattern of its shards; None = found in the folder.
    """

    folder: Path
    labels: bool
    cache_dir: Path
    shards: Mapping[str, str] | None = None
    test_split = "val"

    def class_names(self) -> list[str]:
        """Return the lines of ``classnames.txt``, which some data sets have; else an empty list."""
        path = self.folder / CLASS_NAMES
        if not path.is_file():
            return []
        return [
            line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]

    def prepare(self, split: str) -> None:
        """Index the shards of a split, unless that is done.

        Raises:
            FileNotFoundError: there are no shards.
            ValueError: a shard is damaged, compressed or of another layout; the message names it and says what to do.
            OSError: the cache cannot be written.
        """
        files = self._files(split)
        path = self._index(files)
        if _read_index(path) is not None:
            return
        with ThreadPoolExecutor(THREADS) as pool:
            each = pool.map(partial(index_shard, labels=self.labels), files)
            try:
                found = list(progress(each, f"Indexing {split} shards", len(files)))
            finally:
                pool.shutdown(cancel_futures=True)  # after an error, the other shards do not matter
        whole = np.concatenate(found)
        columns = dict(zip(("starts", "sizes", "labels"), whole.T, strict=True))
        counts = np.array([len(one) for one in found])
        with writing_cache(path.parent, "tar shards"), atomic_file(path) as file:
            np.savez(file, counts=counts, **columns)

    def open(self, split: str, crop: Crop) -> TarImages:
        """Read the index of a split.

        Args:
            split: ``train`` or ``val``.
            crop: makes canvases of images.

        Raises:
            FileNotFoundError: there are no shards, or `prepare` did not run.
        """
        files = self._files(split)
        path = self._index(files)
        index = _read_index(path)
        if index is None:
            raise FileNotFoundError(
                f"no index of the {split} shards at {path}: call prepare_data() first; with several machines, set "
                "cache_dir to a folder that all of them see, or prepare_data_per_node"
            )
        which = np.repeat(np.arange(len(files), dtype=np.int32), index["counts"])
        return TarImages(
            files=files,
            which=which,
            starts=index["starts"],
            sizes=index["sizes"],
            labels=index["labels"] if self.labels else None,
            crop=crop,
        )

    def _files(self, split: str) -> list[Path]:
        files = shard_files(self.folder, split, "tar", self.shards)
        if not files:
            raise FileNotFoundError(
                f"folder: there is neither {split}-*.tar nor {split}/*.tar in {self.folder}; give their names as shards"
            )
        return files

    def _index(self, files: Sequence[Path]) -> Path:
        """Return the path of the index, whose name changes with the shards and the code that reads them."""
        code = b"".join(Path(module).read_bytes() for module in (__file__, tar.__file__))
        described = f"{of_files(files)} {self.labels} {sha256(code).hexdigest()}"
        return self.cache_dir / f"tar-{sha256(described.encode()).hexdigest()[:24]}.npz"


@dataclass(kw_only=True)
class TarImages(Images):
    """The images of a split. No file stays open, so worker processes share nothing.

    Attributes:
        files: the shards.
        which: shard of each image, int32 ``[n]``.
        starts: first byte of each, int64 ``[n]``.
        sizes: bytes of each, int64 ``[n]``.
        labels: class of each, int64 ``[n]``, or None.
        crop: makes canvases of them.
    """

    files: list[Path]
    which: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray | None
    crop: Crop

    def __len__(self) -> int:
        return len(self.starts)

    def canvas(self, index: int) -> np.ndarray:
        """Return an image, uint8 ``[3, size, size]``; raises as `decode` and `Crop` do.

        Raises:
            UnreadableImageError: the shard is no longer what it was.
        """
        path = self.files[self.which[index]]
        try:
            member, data = read_member(path, int(self.starts[index]), int(self.sizes[index]))
        except (DamagedError, FileNotFoundError) as error:
            raise UnreadableImageError(f"image {index}: {error}", place=str(path)) from error
        name = f"{member} in {path}"
        return self.crop(decode(data, name), name)

    def fingerprint(self) -> str:
        """Return names, sizes and times of the shards, the crop and the labels; raises OSError if a shard is gone."""
        return f"{of_files(self.files)} {self.crop} {of_arrays(self.labels)}"


def index_shard(path: Path, labels: bool) -> np.ndarray:
    """Find where the images of a shard are, in the order in which it holds them.

    The files of a sample need not be neighbours.

    Args:
        path: of the shard.
        labels: whether each image must have a class.

    Returns:
        int64 ``[n, 3]``: first byte, number of bytes, and class (-1 without ``labels``).

    Raises:
        FileNotFoundError: there is no such shard.
        ValueError: it is damaged, holds no images, or an image has no class or no key of its own; the message names it
            and says what to do.
    """
    # 1. what there is of each key
    images: dict[str, tuple[int, int]] = {}
    others: dict[str, str] = {}  # further images of a key, such as KEY.mask.png
    described: dict[str, dict[str, bytes]] = {"cls": {}, "json": {}}
    try:
        for member in tar_members(path, (".cls", ".json") if labels else ()):
            if (sample := _SAMPLE.fullmatch(member.name)) is None:
                continue
            key, ending = sample[1], sample[2].lower()
            if f".{ending}" in SUFFIXES:
                if key in images:
                    raise ValueError(f"{path}: two images have the key {key!r}; give each its own key")
                images[key] = (member.start, member.size)
            elif ending.endswith(SUFFIXES):
                others[key] = member.name
            elif ending in described and member.content is not None:
                described[ending][key] = member.content
    except DamagedError as error:
        raise DamagedError(f"{error}; get the shard again, or create it again") from error
    # 2. what would be lost
    if dotted := sorted(others[key] for key in others.keys() - images.keys()):
        raise ValueError(
            f"{path}: {dotted[0]} belongs to no image, because a key ends at the first dot; use a name without dots"
        )
    if not images:
        raise ValueError(f"{path}: it holds no images ({', '.join(SUFFIXES)}); a sample is KEY.jpg and KEY.cls")
    if labels and (lonely := sorted(described["cls"].keys() - images.keys())):
        raise ValueError(f"{path}: {lonely[0]}.cls has no image beside it; the shard is incomplete or holds other data")
    # 3. the class of each image
    rows = [(*place, _class_of(path, key, described) if labels else -1) for key, place in images.items()]
    return np.array(rows, np.int64)


def _class_of(path: Path, key: str, described: Mapping[str, Mapping[str, bytes]]) -> int:
    """Return the class of an image from ``KEY.cls``, else ``KEY.json``; raises ValueError if it has none."""
    if (text := described["cls"].get(key)) is not None:
        value: object = text.strip().decode(errors="replace")
        name = f"{key}.cls"
    elif (text := described["json"].get(key)) is not None:
        name = f"{key}.json"
        try:
            content = json.loads(text)
            value = content.get("label", content.get("cls"))
        # Whatever it is instead of an object with a class.
        except (ValueError, AttributeError, RecursionError):
            value = None
    else:
        raise ValueError(
            f"{path}: the image of {key!r} has no class: add {key}.cls with the number of its class, or set labels to "
            "false"
        )
    if re.fullmatch(r"-?[0-9]{1,18}", str(value)) is None:
        raise ValueError(
            f"{path}: {name} must hold the number of a class, not {str(value)[:40]!r}; or set labels to false"
        )
    return int(str(value))


def _read_index(path: Path) -> dict[str, np.ndarray] | None:
    """Read the index; return None if it is missing or damaged."""
    try:
        index = read_npz(path)
    except (DamagedError, FileNotFoundError):
        return None
    whole = set(index) == {"counts", "starts", "sizes", "labels"} and int(index["counts"].sum()) == len(index["starts"])
    return index if whole else None
