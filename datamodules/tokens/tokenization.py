"""`TokenizationDataModule`: the canvases of another data module, in order, for a tokenizer to encode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.base import CanvasData, RankedDataModule, class_count, required
from datamodules.loading import count_of

SPLITS = ("train", "val", "test")


class TokenizationDataModule(RankedDataModule):
    """All images of another data module's splits, once, for `litscale predict` with a tokenizer.

    A batch to predict is a dict: ``canvas`` and ``label`` of the source, ``split``, and ``number``, of the batch within
    its split. A training batch is what the source serves on one device in an epoch, with its augmentation; it depends
    on the source's seed alone.

    Attributes:
        done: says which batches to leave out, by split and number, when the loader is made; `callbacks.TokenWriter`
            sets it, for those that it has written.
    """

    def __init__(
        self, source: LightningDataModule, splits: list[str] | None = None, epochs: int = 1, batch_size: int = 256
    ) -> None:
        """Check the options.

        Args:
            source: the data, any module of canvases.
            splits: splits to encode; null = train and val.
            epochs: number of epochs of the training split, each with its own augmentation.
            batch_size: number of images in a batch, and in a shard of the cache.

        Raises:
            ValueError: an option is impossible.
        """
        super().__init__()
        splits = ["train", "val"] if splits is None else splits
        if not splits or any(split not in SPLITS for split in splits) or len(set(splits)) < len(splits):
            raise ValueError(f"splits must be among {', '.join(SPLITS)}, each once, not {splits}")
        if min(epochs, batch_size) < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, not {epochs} and {batch_size}")
        self.source, self.splits, self.epochs, self.batch_size = source, splits, epochs, batch_size
        self.done: Callable[[], set[tuple[str, int]]] = set
        self._batches: dict[str, Batches] = {}

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the source's canvases."""
        return required(self.source, CanvasData, self).canvas_shape

    @property
    def alphabet(self) -> int:
        """The source's number of symbols."""
        return required(self.source, CanvasData, self).alphabet

    @property
    def num_classes(self) -> int:
        """The source's number of classes."""
        return class_count(self.source)

    @property
    def shards(self) -> dict[str, int]:
        """Number of batches of each split, after `setup`."""
        return {split: len(batches) for split, batches in self._batches.items()}

    def prepare_data(self) -> None:
        """Let the source prepare its data; raises as the source does."""
        self.source.prepare_data()

    def setup(self, stage: str) -> None:
        """Open the splits; raises as the source does.

        Raises:
            ValueError: a split has no data.
        """
        for split in self.splits:
            self.source.setup("test" if split == "test" else "fit")
            loaders = {"train": self.source.train_dataloader, "val": self.source.val_dataloader}
            loader = loaders.get(split, self.source.test_dataloader)()
            if not isinstance(loader, DataLoader):
                raise ValueError(f"splits: the data has no {split} split; leave it out")
            self._batches[split] = Batches(loader, split, self.epochs if split == "train" else 1, self.batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of the batches that are not done, each on one device."""
        pending = PendingBatches(list(self._batches.values()), self.done())
        return self.batches_loader(pending, self.source.num_workers if isinstance(self.source, RankedDataModule) else 0)


class Batches(Dataset):
    """The items of a loader's data set, batch by batch.

    Args:
        loader: its data set takes ``(epoch, index)`` in training, else an index.
        split: name of the split.
        epochs: number of epochs of training items.
        batch_size: items of a batch.
    """

    def __init__(self, loader: DataLoader, split: str, epochs: int, batch_size: int) -> None:
        self.data, self.collate = loader.dataset, loader.collate_fn
        self.split, self.batch_size = split, batch_size
        self.size = epochs * count_of(self.data)

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        first = number * self.batch_size
        positions = range(first, min(first + self.batch_size, self.size))
        epoch_size = count_of(self.data)
        keys = [divmod(k, epoch_size) for k in positions] if self.split == "train" else positions
        batch = self.collate([self.data[key] for key in keys])
        if isinstance(batch, tuple):  # modules of images also tell what they could not read
            batch, errors = batch
            if batch is None:
                raise ValueError(f"none of the images of batch {number} can be read: {errors[0]}")
        return {**batch, "split": self.split, "number": number}


class PendingBatches(Dataset):
    """The batches of several splits, one after the other, without those that are done.

    Args:
        parts: the splits' batches.
        done: split and number of those to leave out.
    """

    def __init__(self, parts: list[Batches], done: set[tuple[str, int]]) -> None:
        self._items = [(part, number) for part in parts for number in range(len(part))]
        self._items = [(part, number) for part, number in self._items if (part.split, number) not in done]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, number = self._items[index]
        return part[number]
