"""What data modules of images share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch.utils.data import DataLoader

from datamodules.base import RankedDataModule
from datamodules.images.dataset import Augmentation, EvaluationImages, ImageLoader, Images, TrainingImages, collate
from datamodules.images.renderer import ImageRenderer
from datamodules.images.requests import ImageRequest, image_requests
from datamodules.loading import ResumableLoader
from datamodules.messages import check_least
from datamodules.requests import RequestRecord, Requests, recorded


class ImageDataModule(RankedDataModule, ABC):
    """Square images with classes, as batches of symbol canvases; where they come from is the subclasses' affair.

    Args:
        size: side of a canvas, in pixels.
        channels: 3 for RGB, 1 for grey.
        batch_size: images of a batch on each device.
        num_classes: number of classes; 0 = batches have no labels.
        stage_splits: stage -> splits that it needs.
        augment: changes training canvases, or None.
        most: split -> number of images to evaluate at most.
        strict: stop at images that cannot be read.
        num_workers: processes that load batches, for each device.
        seed: of order and augmentation.
        predict: what to generate.

    Raises:
        ValueError: an option is impossible; the message names it.
    """

    alphabet = 256

    def __init__(
        self,
        size: int,
        channels: int,
        batch_size: int,
        num_classes: int,
        stage_splits: Mapping[str, tuple[str, ...]],
        augment: Augmentation | None,
        most: Mapping[str, int | None],
        strict: bool,
        num_workers: int,
        seed: int,
        predict: ImageRequest,
    ) -> None:
        super().__init__()
        check_least(size=(size, 1), batch_size=(batch_size, 1), num_workers=(num_workers, 0), seed=(seed, 0))
        predict.check_labels(num_classes)
        self.canvas_shape = (channels, size, size)
        self.batch_size, self.num_classes = batch_size, num_classes
        self.stage_splits, self.augment, self.most = stage_splits, augment, most
        self.strict, self.num_workers, self.seed = strict, num_workers, seed
        self.request = predict
        self._images: dict[str, Images] = {}
        self._requests: Requests | None = None

    @abstractmethod
    def open(self, split: str) -> Images:
        """The images of a split."""

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
                self._images[split] = self.open(split)

    def train_dataloader(self) -> ResumableLoader:
        """Training images in an order of each epoch's own."""
        data = TrainingImages(self._images["train"], self.seed, self.augment, self.strict, self.ranks()[0])
        return self.training_loader(data, ImageLoader, collate_fn=collate)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation images, in order; no loader if there is to be no validation."""
        return self._in_order("val", "val") if "val" in self._images else []

    def test_dataloader(self) -> DataLoader:
        """Test images, in order."""
        return self._in_order(self.stage_splits["test"][0], "test")

    def predict_dataloader(self) -> DataLoader:
        """The requested batches, each on one device."""
        return self.batches_loader(self._requests)

    def described_request(self) -> RequestRecord:
        """What is generated, for the record; raises as `recorded` does."""
        return recorded(self.request, self._requests)

    def _in_order(self, split: str, stage: str) -> DataLoader:
        """Each image of a split once."""
        data = EvaluationImages(self._images[split], self.most[stage], self.strict)
        return self.ordered_loader(data, split, ImageLoader, collate_fn=collate)
