"""`TokenDataModule`: batches of tokens from a cache."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.base import (
    CanvasData,
    RankedDataModule,
    RenderedData,
    Renderer,
    RequestedData,
    class_names_of,
    offered,
)
from datamodules.loading import ResumableLoader
from datamodules.messages import check_least
from datamodules.requests import RequestRecord
from datamodules.tokens.cache import Shard, TokenMetadata, read_shard
from litscale.storage.fingerprints import of_arrays

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


class TokenDataModule(RankedDataModule):
    """Tokens that `litscale predict` wrote with a tokenizer and `callbacks.TokenWriter`.

    A batch is a dict: ``tokens`` int64 ``[B, L]``, all scales joined, and with classes ``label`` int64 ``[B]``. The
    order in training depends on seed, epoch, position and the number of devices alone, so a run that resumes in the
    middle of an epoch goes on exactly. Shards are memory-mapped.
    """

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int = 64,
        source: LightningDataModule | None = None,
        verify: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        """Check the options.

        Args:
            folder: folder of the cache.
            batch_size: number of images in a batch on each device.
            source: data module of the images; it says what `litscale predict` generates, and renders samples.
            verify: read the whole cache once before training and compare checksums.
            num_workers: number of processes that load batches, for each device.
            seed: seed of the order.

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__()
        check_least(batch_size=(batch_size, 1), num_workers=(num_workers, 0), seed=(seed, 0))
        self.folder = Path(folder).expanduser()
        self.batch_size, self.verify, self.num_workers, self.seed = batch_size, verify, num_workers, seed
        self.source = source
        self._shards: dict[str, list[Shard]] = {}

    @cached_property
    def metadata(self) -> TokenMetadata:
        """What the cache says about itself; raises as :meth:`TokenMetadata.read` does."""
        return TokenMetadata.read(self.folder)

    @property
    def token_metadata(self) -> dict[str, Any]:
        """``tokenizer`` (its checksum), ``patch_nums`` and ``vocab``, for a module to compare with its own."""
        return {
            "tokenizer": self.metadata.tokenizer,
            "patch_nums": self.metadata.patch_nums,
            "vocab": self.metadata.vocab,
        }

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.metadata.num_classes

    @property
    def canvas_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the source's canvases, None without a source."""
        source = offered(self.source, CanvasData)
        return None if source is None else source.canvas_shape

    @property
    def alphabet(self) -> int | None:
        """The source's number of symbols, None without a source."""
        source = offered(self.source, CanvasData)
        return None if source is None else source.alphabet

    @property
    def renderer(self) -> Renderer | None:
        """The source's renderer, None without a source."""
        source = offered(self.source, RenderedData)
        return None if source is None else source.renderer

    @property
    def known_class_names(self) -> list[str]:
        """The source's names of classes; empty where there are none or they are not known yet."""
        return class_names_of(self.source)

    def prepare_data(self) -> None:
        """Verify the shards; one process of each node does this.

        Raises:
            FileNotFoundError: there is no cache.
            ValueError: a shard is missing or damaged.
        """
        if self.verify:
            for split, count in self.metadata.shards.items():
                for number in range(count):
                    read_shard(self.folder, self.metadata, split, number, verify=True)

    def setup(self, stage: str) -> None:
        """Open the shards of a stage; prediction needs the source instead.

        Raises:
            FileNotFoundError: there is no cache.
            ValueError: it lacks a split or shard, labels are out of range, or there is no source to predict with.
        """
        if stage == "predict":
            self._asking().setup("predict")
        for split in STAGE_SPLITS.get(stage, ()):
            if split not in self.metadata.shards and (split, stage) != ("val", "fit"):
                raise ValueError(
                    f"the token cache {self.folder} has no {split} split: add it to the splits of "
                    "TokenizationDataModule and run litscale predict again"
                )
            count = self.metadata.shards.get(split, 0)
            self._shards[split] = [read_shard(self.folder, self.metadata, split, number) for number in range(count)]

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of the training images, in another random order each epoch."""
        data = TrainingTokens(self._shards["train"], self.seed)
        return self.training_loader(data)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of the validation images, in order; an empty list if the cache has none."""
        return self._in_order("val") if self._shards.get("val") else []

    def test_dataloader(self) -> DataLoader:
        """Return the loader of the test images, in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> Any:
        """Return the source's loader of what it is asked to generate."""
        source = self._asking()
        source.trainer = self.trainer
        return source.predict_dataloader()

    def described_request(self) -> RequestRecord:
        """Return the record of what the source is asked to generate.

        Raises:
            ValueError: the source cannot say.
        """
        source = offered(self.source, RequestedData)
        if source is None:
            raise ValueError(f"data.source, a {type(self.source).__name__}, has no described_request")
        return source.described_request()

    def _asking(self) -> LightningDataModule:
        """Return the source, which says what to generate; raises ValueError if there is none."""
        if self.source is None:
            raise ValueError("litscale predict needs data.source, the data module that says what to generate")
        return self.source

    def _in_order(self, split: str) -> DataLoader:
        return self.ordered_loader(Tokens(self._shards[split]), split)


class Tokens(Dataset):
    """Images of some shards, in order, as tokens.

    Args:
        shards: at least one.
    """

    def __init__(self, shards: list[Shard]) -> None:
        self.shards = shards
        self._ends = list(accumulate(len(shard.tokens) for shard in shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def fingerprint(self) -> str:
        """Return a hash of each shard's tokens and labels."""
        return " ".join(of_arrays(shard.tokens, shard.labels) for shard in self.shards)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        which = bisect_right(self._ends, index)
        shard, row = self.shards[which], index - (self._ends[which - 1] if which else 0)
        item = {"tokens": torch.from_numpy(shard.tokens[row].astype(np.int64))}
        if shard.labels is not None:
            item["label"] = torch.tensor(int(shard.labels[row]))
        return item


class TrainingTokens(Tokens):
    """Shuffled images: item ``(epoch, position)`` is a function of the shards and the seed alone.

    Args:
        shards: at least one.
        seed: at least 0.
    """

    def __init__(self, shards: list[Shard], seed: int) -> None:
        super().__init__(shards)
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, torch.Tensor]:
        # A bare index comes from samplers that know no epochs: Lightning's, when it overfits batches.
        epoch, position = key if isinstance(key, tuple) else (0, key)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self))
            self._epoch = epoch
        return super().__getitem__(int(self._order[position]))
