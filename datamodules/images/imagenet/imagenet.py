"""`ImageNetDataModule`: ImageNet, in any of its common forms, as batches of symbol canvases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from datamodules.images.data_module import ImageDataModule
from datamodules.images.decoding import Crop
from datamodules.images.imagenet.arrays import BATCH_NAME, ArraySource
from datamodules.images.imagenet.folder import FolderSource
from datamodules.images.imagenet.parquet import ParquetSource
from datamodules.images.imagenet.shards import SPLIT_NAMES, SUFFIXES, form_of, shard_files
from datamodules.images.imagenet.tar import TarSource
from datamodules.images.source import Images, ImageSource
from litscale.storage.caches import cache_root


class ImageNetDataModule(ImageDataModule):
    """ImageNet: image files, down-sampled batches, parquet or tar shards; also other data in these forms.

    Class k is the k-th of the sorted WordNet ids. The forms, found by what is in the folder:

    - folder: ``train/<wnid>/*.JPEG``, ``val/<wnid>/*.JPEG`` or ``val/*.JPEG`` with a list of their classes.
    - arrays: ``train_data_batch_1``, ..., ``val_data`` of ImageNet32 or 64 (``.npz``, or pickles, which are read
      without running code), with ``map_clsloc.txt``, which says what their labels mean.
    - parquet: ``data/train-*.parquet``, ``data/validation-*.parquet`` with the columns image and label. Labels are
      taken as they are, which for ImageNet on the Hugging Face hub is the sorted order.
    - tar: ``train-*.tar``, ``validation-*.tar`` or ``train/*.tar``, ``val/*.tar`` in the layout of webdataset:
      ``KEY.jpg`` and ``KEY.cls``, the number of its class. They are indexed once, and read at random places.

    ``validate`` and ``test`` go through ``val``. What cannot be read is treated as `ImageDataModule` says; so is a page
    of a parquet shard; a batch of arrays that cannot be read is left out, and a warning names it.
    """

    def __init__(
        self,
        folder: str,
        *,
        form: Literal["folder", "arrays", "parquet", "tar"] | None = None,
        shards: dict[str, str] | None = None,
        num_classes: int = 1000,
        labels: bool = True,
        class_map: str | None = None,
        val_labels: str | None = None,
        flip: bool = True,
        strict: bool = False,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        """Check the options; nothing is read yet, and nothing at all to predict.

        Args:
            folder: folder of the data.
            form: form of the data: folder, arrays, parquet or tar; null = detected from the contents of the folder.
            shards: for each split (train and val) the names of its parquet or tar shards, relative to folder, such as
                in-train-{000000..001023}.tar; null = found by name.
            num_classes: number of classes; the data must have as many.
            labels: add labels to batches; false for models without classes.
            class_map: file with the meaning of the class numbers of arrays and of the devkit's ground truth:
                map_clsloc.txt, or the devkit's meta.mat; null looks for these in folder.
            val_labels: classes of validation images that are in no class folders: LOC_val_solution.csv, or a text file
                with one line for each image in the order of the sorted names: a wnid, an index into the sorted wnids
                from 0, or the devkit's number from 1 (ILSVRC2012_validation_ground_truth.txt; needs class_map); null
                looks for these two files in folder.
            flip: mirror half of the training images, at random.
            strict: stop at an image, or a batch of arrays, that cannot be read.
            cache_dir: folder for converted arrays (of pickles and compressed files), 12 GB at 64 pixels, and for the
                index of tar shards, 41 MB; null = the environment variable LITSCALE_CACHE, or else litscale in
                XDG_CACHE_HOME or ~/.cache.
            **options: options of `ImageDataModule`.

        Raises:
            ValueError: an option is impossible, or contradicts another one; the message names it.
        """
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}; set labels to false to do without")
        if form not in (None, "folder", "arrays", "parquet", "tar"):
            raise ValueError(f"form must be folder, arrays, parquet or tar, not {form!r}")
        if shards is not None and form not in (None, form_of(shards)):
            raise ValueError(f"form is {form}, but shards names {form_of(shards)} files: leave one of the two out")
        root = Path(folder).expanduser()
        super().__init__(
            ImageNet(
                folder=root,
                form=form,
                labels=labels,
                class_map=class_map,
                val_labels=val_labels,
                cache_dir=cache_root(cache_dir),
                strict=strict,
                shards=shards,
            ),
            num_classes=num_classes if labels else 0,
            flip=flip,
            strict=strict,
            **options,
        )


@dataclass(frozen=True, kw_only=True)
class ImageNet(ImageSource):
    """ImageNet in the form that a folder has; the options are those of `ImageNetDataModule`."""

    folder: Path
    form: str | None
    labels: bool
    class_map: str | None
    val_labels: str | None
    cache_dir: Path
    strict: bool
    shards: Mapping[str, str] | None
    test_split = "val"

    def open(self, split: str, crop: Crop) -> Images:
        """Open the images of ``train`` or ``val``; raises as the form's source and `prepare` do."""
        return self._of_form.open(split, crop)

    def prepare(self, split: str) -> None:
        """Convert arrays that cannot be mapped, or index tar shards, unless that is done.

        Raises:
            FileNotFoundError: there is no data.
            ValueError: there are several forms; an array or a tar shard is damaged, or an array could run code.
            OSError: the cache cannot be written.
        """
        self._of_form.prepare(split)

    def class_names(self) -> list[str]:
        """Return the wnids, or what parquet shards call the classes; raises as `open` does."""
        return self._of_form.class_names()

    @cached_property
    def _of_form(self) -> ImageSource:
        """The source for the form that the folder has."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder: there is no folder {self.folder}; give one that holds images")
        form = form_of(self.shards) if self.shards is not None else self.form or find_form(self.folder)
        if form == "folder":
            return FolderSource(self.folder, self.labels, self.class_map, self.val_labels)
        if form == "arrays":
            return ArraySource(
                folder=self.folder,
                labels=self.labels,
                class_map=self.class_map,
                cache_dir=self.cache_dir,
                strict=self.strict,
            )
        if form == "tar":
            return TarSource(self.folder, self.labels, self.cache_dir, self.shards)
        return ParquetSource(self.folder, self.labels, self.shards)

    def __str__(self) -> str:
        """Return the path of the folder."""
        return str(self.folder)


def find_form(folder: Path) -> str:
    """Return which form of ImageNet a folder holds: ``folder``, ``arrays``, ``parquet`` or ``tar``.

    Raises:
        FileNotFoundError: it holds none of them.
        ValueError: it holds several of them.
    """
    shards = {form: [path for split in SPLIT_NAMES for path in shard_files(folder, split, form)] for form in SUFFIXES}
    of_shards = {path.parent for paths in shards.values() for path in paths}
    evidence = {
        "folder": any((folder / split).is_dir() and folder / split not in of_shards for split in SPLIT_NAMES),
        "arrays": any(BATCH_NAME.fullmatch(path.name) for path in folder.iterdir()),
    } | {form: bool(paths) for form, paths in shards.items()}
    forms = [form for form, there in evidence.items() if there]
    if not forms:
        raise FileNotFoundError(
            f"folder: {folder} holds neither train nor val (image files), nor train_data_batch_1 or val_data (arrays), "
            "nor train-*.parquet or validation-*.parquet, nor train-*.tar or validation-*.tar; put images into "
            "its folders train and val"
        )
    if len(forms) > 1:
        raise ValueError(f"{folder} holds {' and '.join(forms)}: say which to read with the option form")
    return forms[0]
