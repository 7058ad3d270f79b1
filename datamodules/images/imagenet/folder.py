"""Images as files: ``train/<wnid>/*.JPEG``, ``val`` in class folders or flat."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.images.decoding import SUFFIXES, Crop, decode
from datamodules.images.imagenet.classes import CLASS_MAPS, VAL_LABELS, find_file, listed_labels, read_class_map
from datamodules.images.source import Images, ImageSource
from datamodules.messages import abridged
from litscale.storage.fingerprints import of_arrays, of_files

_ENDINGS = tuple(os.fsencode(suffix) for suffix in SUFFIXES)
THREADS = 16  # that list folders: on network file systems each list is a wait


@dataclass(frozen=True)
class FolderSource(ImageSource):
    """A folder with ``train`` and ``val``.

    Args:
        folder: where they are.
        labels: whether classes are wanted.
        class_map: see `read_class_map`; None looks in the folder.
        val_labels: see `listed_labels`; None looks in the folder.
    """

    folder: Path
    labels: bool
    class_map: str | None
    val_labels: str | None
    test_split = "val"

    def class_names(self) -> list[str]:
        """Return the classes, sorted: the folders in ``train``, else those in ``val``, else those of the class map.

        Raises:
            ValueError: there are none of these.
        """
        for split in ("train", "val"):
            if (self.folder / split).is_dir() and (names := class_folders(self.folder / split)):
                return names
        class_map = self._class_map()
        if class_map is None:
            raise ValueError(
                f"{self.folder} has no class folders: move the images into folders named after their classes, give "
                "map_clsloc.txt or the devkit's meta.mat as class_map, or set labels to false"
            )
        return sorted(class_map.values())

    def open(self, split: str, crop: Crop) -> FolderImages:
        """List the images of a split.

        Args:
            split: ``train`` or ``val``.
            crop: makes canvases of images.

        Raises:
            FileNotFoundError: a folder or file is missing, or there are no images.
            ValueError: an image has no class, or an unknown one.
        """
        root = self.folder / split
        if not root.is_dir():
            raise FileNotFoundError(f"folder: there is no folder {root}; give one that holds train and val")
        classes = class_folders(root)
        folders = [root / name for name in classes] or [root]
        with ThreadPoolExecutor(THREADS) as pool:
            lists = list(pool.map(image_names, folders))
        if classes and (loose := image_names(root)):
            raise ValueError(
                f"{root} has class folders and {len(loose)} images beside them: "
                f"{abridged(list(map(os.fsdecode, loose)))}; move these into their class folders"
            )
        if empty := [str(path) for path, names in zip(folders, lists, strict=True) if not names]:
            raise FileNotFoundError(f"folder: no image ({', '.join(SUFFIXES)}) in {abridged(empty)}")
        names = np.array([name for listed in lists for name in listed])
        which = np.repeat(np.arange(len(folders), dtype=np.int32), [len(listed) for listed in lists])
        labels = None
        if self.labels:
            labels = self._folder_labels(classes, root)[which] if classes else self._flat_labels(split, names)
        return FolderImages(folders=folders, names=names, which=which, labels=labels, crop=crop)

    def _class_map(self) -> dict[int, str] | None:
        path = find_file("class_map", self.class_map, self.folder, CLASS_MAPS)
        return None if path is None else read_class_map(path)

    def _folder_labels(self, classes: list[str], root: Path) -> np.ndarray:
        """Return the class of each folder, int64."""
        position = {name: k for k, name in enumerate(self.class_names())}
        if unknown := [name for name in classes if name not in position]:
            raise ValueError(f"{root} has class folders that train does not have: {abridged(unknown)}")
        return np.array([position[name] for name in classes], np.int64)

    def _flat_labels(self, split: str, names: np.ndarray) -> np.ndarray:
        """Return the class of each image that lies in no class folder, int64."""
        path = find_file("val_labels", self.val_labels, self.folder, VAL_LABELS) if split == "val" else None
        if path is None:
            raise ValueError(
                f"the images in {self.folder / split} are not in class folders: move them into folders named after "
                "their classes"
                + (f", give their classes as val_labels ({' or '.join(VAL_LABELS)})" if split == "val" else "")
                + ", or set labels to false"
            )
        return listed_labels(path, list(map(os.fsdecode, names)), self.class_names(), self._class_map())


@dataclass(kw_only=True)
class FolderImages(Images):
    """The image files of a split. Names are kept in one array: a million strings would be copied into every worker.

    Attributes:
        folders: where they are.
        names: file names in their folders, bytes ``[n]``.
        which: folder of each, int32 ``[n]``.
        labels: class of each, int64 ``[n]``, or None.
        crop: makes canvases of them.
    """

    folders: list[Path]
    names: np.ndarray
    which: np.ndarray
    labels: np.ndarray | None
    crop: Crop

    def __len__(self) -> int:
        return len(self.names)

    def canvas(self, index: int) -> np.ndarray:
        """Return an image, uint8 ``[3, size, size]``; raises as `decode` and `Crop` do."""
        path = self.folders[self.which[index]] / os.fsdecode(self.names[index])
        return self.crop(decode(path, str(path)), str(path))

    def fingerprint(self) -> str:
        """Return names, sizes and times of the files, the crop and the labels; raises OSError if a file is gone."""
        folders = [os.fsencode(folder) + b"/" for folder in self.folders]
        files = of_files(folders[which] + name for which, name in zip(self.which, self.names, strict=True))
        return f"{files} {self.crop} {of_arrays(self.labels)}"


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def image_names(folder: Path) -> list[bytes]:
    """Return the names of the image files in a folder, sorted."""
    names = os.listdir(os.fsencode(folder))  # noqa: PTH208, a million Path objects take seconds
    return sorted(name for name in names if name.lower().endswith(_ENDINGS) and not name.startswith(b"."))
