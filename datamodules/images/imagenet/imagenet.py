"""`ImageNetDataModule`: ImageNet, in any of its common forms, as batches of symbol canvases."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from lightning.pytorch.trainer.states import TrainerFn

from datamodules.images.base import ImageDataModule
from datamodules.images.dataset import Images
from datamodules.images.decoding import Crop, CutAndFlip
from datamodules.images.imagenet.arrays import BATCH_NAME, ArraySource
from datamodules.images.imagenet.folder import FolderSource
from datamodules.images.imagenet.parquet import ParquetSource, shards
from datamodules.images.requests import ImageRequest
from litscale.storage.caches import cache_root

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("val",)}
SAMPLES = ImageRequest()


class ImageNetDataModule(ImageDataModule):
    """ImageNet: image files, down-sampled batches or parquet shards; also other data in these forms.

    A batch is a dict: ``canvas`` uint8 ``[B, 3, size, size]``, ``label`` int64 ``[B]``, class k being the k-th of the
    sorted WordNet ids. Batches to predict are described at `datamodules.requests.Requests`.

    The forms, found by what is in the folder:

    - folder: ``train/<wnid>/*.JPEG``, ``val/<wnid>/*.JPEG`` or ``val/*.JPEG`` with a list of their classes.
    - arrays: ``train_data_batch_1``, ..., ``val_data`` of ImageNet32 or 64 (``.npz``, or pickles, which are read
      without running code), with ``map_clsloc.txt``, which says what their labels mean.
    - parquet: ``data/train-*.parquet``, ``data/validation-*.parquet`` with the columns image and label. Labels are
      taken as they are, which for ImageNet on the Hugging Face hub is the sorted order.

    Images are reduced and cut to the centre square as in ADM and DiT (see `datamodules.images.decoding`). Training
    images are shuffled; order, places and flips depend on seed, epoch, position and the number of devices alone, so a
    run that resumes in the middle of an epoch goes on exactly, with any number of workers. ``validate`` and ``test`` go
    through ``val``, each image once over all devices, so devices may differ by one image.

    An image that cannot be read is replaced by another one in training and left out in evaluation; warnings count them.
    So is a page of a parquet shard; a batch of arrays that cannot be read is left out, and a warning names it.
    """

    def __init__(
        self,
        folder: str,
        size: int = 64,
        source: Literal["folder", "arrays", "parquet"] | None = None,
        num_classes: int = 1000,
        labels: bool = True,
        class_map: str | None = None,
        val_labels: str | None = None,
        batch_size: int = 32,
        flip: bool = True,
        random_crop: float = 1.0,
        upsample: bool = False,
        val_images: int | None = None,
        test_images: int | None = None,
        strict: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
        predict: ImageRequest = SAMPLES,
    ) -> None:
        """Check the options; nothing is read yet, and nothing at all to predict.

        Args:
            folder: where the data is.
            size: side of a canvas, in pixels.
            source: form of the data; null = found by what is in the folder.
            num_classes: number of classes; the data must have as many.
            labels: give batches their labels; false for models without classes.
            class_map: what the class numbers of arrays and of the devkit's ground truth mean: map_clsloc.txt, or the
                devkit's meta.mat; null looks for these in folder.
            val_labels: classes of validation images that are in no class folders: LOC_val_solution.csv, or a text file
                with one line for each image in the order of the sorted names: a wnid, an index into the sorted wnids
                from 0, or the devkit's number from 1 (ILSVRC2012_validation_ground_truth.txt; needs class_map); null
                looks for the two named ones in folder.
            batch_size: images of a batch on each device.
            flip: mirror half of the training images, at random.
            random_crop: reduce training images to so many times the canvas and cut it at a random place, as VAR was
                trained with 1.125; 1 = the centre square.
            upsample: enlarge images smaller than the canvas, as the published pipelines do, rather than stop at them.
                ImageNet has some of fewer than 64 pixels, and many of fewer than 256.
            val_images: evaluate at most so many images in validation, evenly spread over the split; 0 = no validation
                while training, null = all.
            test_images: the same for the test; null = all.
            strict: stop at images, or batches of arrays, that cannot be read.
            num_workers: processes that load and decode batches, for each device.
            seed: of order, places and flips.
            cache_dir: where arrays go that cannot be mapped as they are (pickles, compressed files), 12 GB at 64
                pixels; null = the environment variable LITSCALE_CACHE, else litscale in XDG_CACHE_HOME or ~/.cache.
            predict: what `litscale predict` generates.

        Raises:
            ValueError: an option is impossible, or contradicts another one; the message names it.
        """
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}; set labels to false to do without")
        if source not in (None, "folder", "arrays", "parquet"):
            raise ValueError(f"source must be folder, arrays or parquet, not {source!r}")
        if random_crop < 1:
            raise ValueError(f"random_crop must be at least 1, not {random_crop}; 1 is the centre square")
        for option, most, least in (("val_images", val_images, 0), ("test_images", test_images, 1)):
            if most is not None and most < least:
                raise ValueError(f"{option} must be at least {least}, not {most}")
        super().__init__(
            size=size,
            channels=3,
            batch_size=batch_size,
            num_classes=num_classes if labels else 0,
            stage_splits={**STAGE_SPLITS, "fit": ("train",)} if val_images == 0 else STAGE_SPLITS,
            augment=CutAndFlip(size, flip),
            most={"val": val_images, "test": test_images},
            strict=strict,
            num_workers=num_workers,
            seed=seed,
            predict=predict,
        )
        self.folder = Path(folder).expanduser()
        self.form, self.class_map, self.val_labels = source, class_map, val_labels
        wide = Crop(round(random_crop * size), upsample, whole=random_crop > 1)
        self.crops = {"train": wide, "val": Crop(size, upsample)}
        self.cache_dir = cache_root(cache_dir)

    @cached_property
    def source(self) -> FolderSource | ArraySource | ParquetSource:
        """Where the images are. Looks at the folder.

        Raises:
            FileNotFoundError: no such folder, or nothing known in it.
            ValueError: it holds several forms.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder: there is no folder {self.folder}; give one that holds ImageNet")
        labels = bool(self.num_classes)
        form = self.form or find_form(self.folder)
        if form == "folder":
            return FolderSource(self.folder, labels, self.class_map, self.val_labels)
        if form == "arrays":
            return ArraySource(self.folder, labels, self.class_map, self.cache_dir, self.strict)
        return ParquetSource(self.folder, labels)

    @cached_property
    def class_names(self) -> list[str]:
        """Name of each class: its wnid, or what parquet shards call it, or its number; empty without ``labels``.

        Raises:
            FileNotFoundError: there is no data.
            ValueError: the data has another number of classes than ``num_classes``.
        """
        if not self.num_classes:
            return []
        names = self.source.class_names()
        if names and len(names) != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, but {self.folder} has {len(names)} classes: set num_classes to "
                f"{len(names)} (in the network too), or complete the data"
            )
        return names or [str(number) for number in range(self.num_classes)]

    def prepare_data(self) -> None:
        """Convert arrays that cannot be mapped, unless that is done; one process of each node does this.

        Raises:
            FileNotFoundError: there is no data.
            ValueError: an array is damaged, or could run code.
            OSError: the cache cannot be written.
        """
        stages = {TrainerFn.VALIDATING: "validate", TrainerFn.TESTING: "test", TrainerFn.PREDICTING: "predict"}
        stage = "fit" if self.trainer is None else stages.get(self.trainer.state.fn, "fit")
        for split in self.stage_splits.get(stage, ()):
            self.source.prepare(split)

    def open(self, split: str) -> Images:
        """The images of ``train`` or ``val``; raises as `setup` does."""
        images = self.source.open(split, self.crops[split])
        if images.labels is not None:
            low, high = int(images.labels.min()), int(images.labels.max())
            _ = self.class_names  # checks their number
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"the labels of the {split} split in {self.folder} are {low} to {high}, out of range: num_classes "
                    f"is {self.num_classes}, so they must be in 0..{self.num_classes - 1}"
                )
        return images


def find_form(folder: Path) -> str:
    """Which form of ImageNet a folder holds: ``folder``, ``arrays`` or ``parquet``.

    Raises:
        FileNotFoundError: none of them.
        ValueError: several of them.
    """
    found = {
        "folder": (folder / "train").is_dir() or (folder / "val").is_dir(),
        "arrays": any(BATCH_NAME.fullmatch(path.name) for path in folder.iterdir()),
        "parquet": bool(shards(folder, "train") or shards(folder, "val")),
    }
    forms = [form for form, there in found.items() if there]
    if not forms:
        raise FileNotFoundError(
            f"folder: {folder} holds neither train or val (image files), nor train_data_batch_1 or val_data (arrays), "
            "nor train-*.parquet or validation-*.parquet"
        )
    if len(forms) > 1:
        raise ValueError(f"{folder} holds {' and '.join(forms)}: say which to read with the option source")
    return forms[0]
