"""`ImageDataModule`: images of any `ImageSource` as batches of symbol canvases."""

from __future__ import annotations

from functools import cached_property

from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from datamodules.base import RankedDataModule
from datamodules.images.dataset import Augmentation, EvaluationImages, ImageLoader, TrainingImages, collate
from datamodules.images.decoding import Crop, CutAndFlip
from datamodules.images.renderer import ImageRenderer
from datamodules.images.requests import ImageRequest, image_requests
from datamodules.images.source import Images, ImageSource
from datamodules.loading import ResumableLoader
from datamodules.messages import check_least
from datamodules.requests import RequestRecord, Requests, recorded

SAMPLES = ImageRequest()


class ImageDataModule(RankedDataModule):
    """Square images from any source.

    A batch is a dict: ``canvas`` uint8 ``[B, C, size, size]``, with classes ``label`` int64 ``[B]``. Batches to predict
    are described at `datamodules.requests.Requests`.

    Images are reduced and cut to the centre square as in ADM and DiT (see `datamodules.images.decoding`). Training
    images are shuffled; order, places and flips depend on seed, epoch, position and the number of devices alone, so a
    run that resumes in the middle of an epoch goes on exactly, with any number of workers. Evaluation goes through each
    image once over all devices, so devices may differ by one image.

    An image that cannot be read is replaced by another one in training and left out in evaluation; warnings count them.
    """

    alphabet = 256
    classes_option = "num_classes"  # the option that says how many classes there are, as messages name it

    def __init__(
        self,
        source: ImageSource,
        *,
        size: int = 64,
        num_classes: int = 0,
        batch_size: int = 32,
        flip: bool = False,
        random_crop: float = 1.0,
        upsample: bool = False,
        val_images: int | None = None,
        test_images: int | None = None,
        strict: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        predict: ImageRequest = SAMPLES,
    ) -> None:
        """Check the options; nothing is read yet, and nothing at all to predict.

        Args:
            source: the data set.
            size: side of a canvas, in pixels.
            num_classes: number of classes; the data must have as many. 0 = batches have no labels.
            batch_size: number of images in a batch on each device.
            flip: mirror half of the training images, at random.
            random_crop: resize training images to this many times the canvas and crop them at a random place, such as
                1.125 for VAR; 1 = the centre square.
            upsample: enlarge images smaller than the canvas, as the published pipelines do, instead of an error.
                ImageNet has some of fewer than 64 pixels, and many of fewer than 256.
            val_images: most images to evaluate in validation, evenly spread over the split; 0 = no validation
                while training, null = all.
            test_images: the same for the test; null = all.
            strict: stop at an image that cannot be read.
            num_workers: number of processes that load and decode batches, for each device.
            seed: seed of order, crops and flips.
            predict: what `litscale predict` generates.

        Raises:
            ValueError: an option is impossible, or contradicts another one; the message names it.
        """
        super().__init__()
        check_least(size=(size, 1), batch_size=(batch_size, 1), num_workers=(num_workers, 0), seed=(seed, 0))
        check_least(num_classes=(num_classes, 0), val_images=(val_images, 0), test_images=(test_images, 1))
        if random_crop < 1:
            raise ValueError(f"random_crop must be at least 1, not {random_crop}; 1 is the centre square")
        predict.check_labels(num_classes)
        self.source = source
        self.canvas_shape = (source.channels, size, size)
        self.batch_size, self.num_classes = batch_size, num_classes
        self.crop, self.wide_crop = Crop(size, upsample), Crop(round(random_crop * size), upsample, random_crop > 1)
        self.augment: Augmentation | None = CutAndFlip(size, flip)
        self.most = {"val": val_images, "test": test_images}
        validation = () if val_images == 0 else ("val",)
        self.stage_splits = {"fit": ("train", *validation), "validate": ("val",), "test": (source.test_split,)}
        self.strict, self.num_workers, self.seed = strict, num_workers, seed
        self.request = predict
        self._images: dict[str, Images] = {}
        self._requests: Requests  # from setup("predict") on

    @cached_property
    def class_names(self) -> list[str]:
        """Name of each class as the source has it, or its number; empty without classes.

        Raises:
            FileNotFoundError: there is no data.
            ValueError: the data has another number of classes than ``num_classes``.
        """
        names = self.source.class_names() if self.num_classes else []
        if names and len(names) != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, but {self.source} has {len(names)} classes: set num_classes to "
                f"{len(names)} (in the network too), or complete the data"
            )
        return names or [str(number) for number in range(self.num_classes)]

    @property
    def known_class_names(self) -> list[str]:
        """Name of each class, where the source knows them before anything is read; else empty."""
        return list(self.source.known_names) if self.num_classes else []

    def images(self, split: str) -> Images:
        """Open the images of a split, again at each call; raises as `setup` does."""
        images = self.source.open(split, self.wide_crop if split == "train" else self.crop)
        if not self.num_classes:
            images.labels = None
        elif images.labels is None:
            raise ValueError(
                f"num_classes is {self.num_classes}, but {self.source} has no labels: set num_classes to 0"
            )
        else:
            low, high = int(images.labels.min()), int(images.labels.max())
            _ = self.class_names  # checks their number
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"the labels of the {split} split in {self.source} are {low} to {high}, out of range: "
                    f"{self.classes_option} gives {self.num_classes} classes, so they must be in "
                    f"0..{self.num_classes - 1}"
                )
        return images

    def prepare_data(self) -> None:
        """Let the source prepare the splits of the stage, in one process of each node; raises as the source does."""
        stages: dict[TrainerFn | None, str] = {
            TrainerFn.VALIDATING: "validate",
            TrainerFn.TESTING: "test",
            TrainerFn.PREDICTING: "predict",
        }
        stage = "fit" if self.trainer is None else stages.get(self.trainer.state.fn, "fit")
        for split in self.stage_splits.get(stage, ()):
            self.source.prepare(split)

    @property
    def renderer(self) -> ImageRenderer:
        """Turns canvases into files and pictures, and files into canvases."""
        return ImageRenderer(self.canvas_shape[0], self.canvas_shape[1])

    def setup(self, stage: str) -> None:
        """Open the splits of a stage; prediction needs none.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            FileNotFoundError: a split or file is missing, or `prepare_data` did not run.
            ValueError: the data does not fit the options, or the request does not fit the canvas.
        """
        if stage == "predict":
            self._requests = image_requests(self.request, self.renderer, self.num_classes, self.batch_size)
        for split in self.stage_splits.get(stage, ()):
            if split not in self._images:
                self._images[split] = self.images(split)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of the training images, in another random order each epoch."""
        data = TrainingImages(self._images["train"], self.seed, self.augment, self.strict, self.ranks()[0])
        return self.training_loader(data, ImageLoader, collate_fn=collate)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of the validation images, in order; an empty list if there is to be no validation."""
        return self._in_order("val", "val") if "val" in self._images else []

    def test_dataloader(self) -> DataLoader:
        """Return the loader of the test images, in order."""
        return self._in_order(self.stage_splits["test"][0], "test")

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of the requested batches, each on one device."""
        return self.batches_loader(self._requests)

    def described_request(self) -> RequestRecord:
        """Return the record of what is generated; raises as `recorded` does."""
        return recorded(self.request, self._requests)

    def _in_order(self, split: str, stage: str) -> DataLoader:
        """Return a loader that gives each image of a split once."""
        data = EvaluationImages(self._images[split], self.most[stage], self.strict)
        return self.ordered_loader(data, split, ImageLoader, collate_fn=collate)
