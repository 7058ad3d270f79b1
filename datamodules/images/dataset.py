"""Images as items and batches, and what happens to those that cannot be read.

An item is a pair: what goes into the batch, or None, and what could not be read on the way. So the main process knows
what its workers met, and can count and report it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datamodules.images.decoding import UnreadableImageError
from datamodules.images.source import Images
from datamodules.loading import ResumableLoader
from datamodules.messages import abridged

Item = tuple[dict[str, Tensor] | None, list[str]]
Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
MOST_TRIES = 100  # images, or pages of images, in a row that cannot be read


class TrainingImages(Dataset):
    """Shuffled images: item ``(epoch, position)`` is a function of the images, the seed and the number of ranks alone.

    So it is the same for any number of workers, and after a resume. An image that cannot be read is replaced by the
    next one of its rank, so that every rank has equally many.

    Args:
        images: what to draw from.
        seed: at least 0.
        augment: changes a canvas, given a generator of random numbers.
        strict: raise for an image that cannot be read.
        ranks: number of ranks that share an epoch.
    """

    fate = "replaced by others"

    def __init__(self, images: Images, seed: int, augment: Augmentation | None, strict: bool, ranks: int) -> None:
        self.images = images
        self.seed = seed
        self.augment = augment
        self.strict = strict
        self.ranks = ranks
        self._size = len(images) // ranks * ranks
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._size

    @property
    def contents(self) -> str:
        """The number of images, over all ranks."""
        return f"{len(self.images)} images"

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        # A bare index comes from samplers that know no epochs: Lightning's, when it overfits batches.
        epoch, position = key if isinstance(key, tuple) else (0, key)
        if epoch != self._epoch:
            self._order = self.images.order(np.random.default_rng((self.seed, epoch)), self.ranks)[: self._size]
            self._epoch = epoch
        errors: list[str] = []
        places: set[str] = set()  # a damaged page makes all of its images unreadable
        for attempt in range(self._size // self.ranks):
            index = int(self._order[(position + attempt * self.ranks) % self._size])
            try:
                canvas = self.images.canvas(index)
            except UnreadableImageError as error:
                if self.strict:
                    raise strictly(error) from error
                errors.append(str(error))
                places.add(error.place)
                if len(places) == MOST_TRIES:
                    break
                continue
            if self.augment is not None:
                canvas = self.augment(canvas, np.random.default_rng((self.seed, epoch, position)))
            return _item(canvas, self.images.labels, index), errors
        raise ValueError(f"{len(errors)} images in a row cannot be read: {abridged(errors)}")


class EvaluationImages(Dataset):
    """Images as they are, in order; one that cannot be read is left out.

    Args:
        images: what to draw from.
        most: at most so many of them, evenly spread; None = all.
        strict: raise for an image that cannot be read.
    """

    fate = "left out"

    def __init__(self, images: Images, most: int | None, strict: bool) -> None:
        self.images = images
        self.strict = strict
        self._size = min(len(images), most or len(images))

    def __len__(self) -> int:
        return self._size

    def fingerprint(self) -> str:
        """Return text that differs wherever an item does."""
        return f"{self.images.fingerprint()} {self._size}"

    def __getitem__(self, position: int) -> Item:
        index = position * len(self.images) // self._size
        try:
            return _item(self.images.canvas(index), self.images.labels, index), []
        except UnreadableImageError as error:
            if self.strict:
                raise strictly(error) from error
            return None, [str(error)]


class ImageLoader(ResumableLoader):
    """Loads batches of either data set, and counts and reports the images that could not be read.

    Attributes:
        unreadable: what could not be read so far, each once.
    """

    dataset: TrainingImages | EvaluationImages
    unreadable: tuple[str, ...] = ()
    _reported = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        nothing = True
        for batch, errors in super().__iter__():
            self.unreadable += tuple(error for error in dict.fromkeys(errors) if error not in self.unreadable)
            self._report(last=self._taken == len(self))
            if batch is not None:
                nothing = False
                yield batch
        if nothing and self.unreadable:
            # The other devices would wait for this one's results for ever.
            raise ValueError(f"none of the images can be read: {abridged(self.unreadable)}")

    def _report(self, last: bool) -> None:
        """Warn of the first image, whenever their number has doubled, and of the rest at the end of a pass."""
        count = len(self.unreadable)
        if count > self._reported and (last or count >= 2 * self._reported):
            self._reported = count
            images = "image" if count == 1 else "images"
            warnings.warn(
                f"{count} {images} cannot be read so far, {self.dataset.fate}; the latest: {self.unreadable[-1]}",
                stacklevel=2,
            )


def collate(items: list[Item]) -> tuple[dict[str, Tensor] | None, list[str]]:
    """Return the batch of some items, None if it would be empty, and what could not be read."""
    readable = [item for item, _ in items if item is not None]
    return default_collate(readable) if readable else None, [error for _, errors in items for error in errors]


def strictly(error: UnreadableImageError) -> ValueError:
    """Return the error of strict reading; its message tells the user what to do."""
    return ValueError(f"strict: {error}; remove the image, or set strict to false to do without it")


def _item(canvas: np.ndarray, labels: np.ndarray | None, index: int) -> dict[str, Tensor]:
    item = {"canvas": torch.from_numpy(canvas)}
    if labels is not None:
        item["label"] = torch.tensor(int(labels[index]))
    return item
