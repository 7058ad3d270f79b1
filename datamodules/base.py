"""The contract between data and what uses them, and the base class of our own data modules.

Any `LightningDataModule` that has the members of a contract offers it; nothing needs to be inherited. What needs data
asks `required` for the contract that it cannot do without, and `offered` for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import getattr_static
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import EpochSampler, ResumableLoader, ShardSampler, count_of
from datamodules.requests import RequestRecord

Contract = TypeVar("Contract")


class CanvasData(Protocol):
    """Data whose batches have a ``canvas`` of symbols, uint8 ``[B, C, H, W]``: what every model of canvases needs."""

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a training canvas; height and channels are those of every canvas."""

    @property
    def alphabet(self) -> int:
        """Number of symbols; a canvas has 0 .. alphabet - 1."""


class ClassData(Protocol):
    """Data that may have classes; batches then have a ``label``, int64 ``[B]``."""

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for none."""


class NamedClassData(Protocol):
    """Data whose class names can be told without reading anything for them."""

    @property
    def known_class_names(self) -> Sequence[str]:
        """Name of each class; empty without classes, if classes have only numbers, or if no names are known yet."""


class BatchData(Protocol):
    """Data that can say how large their batches are."""

    @property
    def batch_size(self) -> int:
        """Items of a batch on each device."""


class CountedExamples(Protocol):
    """A training set that describes its contents in its own words, where the number of examples does not say enough."""

    @property
    def contents(self) -> str:
        """What the training set holds, such as ``350 pieces, 2800 windows``."""


class Renderer(Protocol):
    """Shows canvases, uint8 ``[C, H, W]``; see `datamodules.images.renderer.ImageRenderer`."""

    def picture(self, symbols: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Return a picture, uint8 RGB ``[height, width, 3]``, that marks the cells that were given."""

    def statistics(self, symbols: np.ndarray) -> dict[str, float]:
        """Return statistics of one canvas, by name."""

    def check(self, wav: bool = False, score: bool = False) -> None:
        """Refuse kinds of files that :meth:`save` cannot write, before anything is sampled."""

    def save(
        self,
        symbols: np.ndarray,
        stem: str | Path,
        known: np.ndarray | None = None,
        frames: Sequence[np.ndarray] | None = None,
        wav: bool = False,
        unknown: Sequence[np.ndarray] | None = None,
        score: bool = False,
    ) -> list[Path]:
        """Write the files of a canvas, whose names begin with ``stem``, and return their paths."""


@runtime_checkable
class SheetRenderer(Renderer, Protocol):
    """A renderer that also shows many canvases on one page."""

    def sheet(
        self,
        canvases: np.ndarray,
        columns: int = 8,
        unknown: np.ndarray | None = None,
        names: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Draw canvases ``[N, C, H, W]`` side by side, each with its name, if any; uint8 RGB ``[height, width, 3]``."""


class RenderedData(Protocol):
    """Data whose canvases can be shown."""

    @property
    def renderer(self) -> Renderer:
        """Turns canvases into files and pictures."""


class RequestedData(Protocol):
    """Data that say what their ``predict_dataloader`` asks for."""

    def described_request(self) -> RequestRecord:
        """Return the record of the request, after ``setup("predict")``."""


class WrittenData(RenderedData, RequestedData, Protocol):
    """Data whose predictions can be written to files."""


class WholeContract(CanvasData, ClassData, BatchData, RenderedData, RequestedData, Protocol):
    """All that a data module of canvases may offer to training, evaluation and prediction."""


class MeteredData(Protocol):
    """Data of piano rolls that can say in which meter samples are."""

    def sample_meter(self, label: int | None = None) -> float | None:
        """Return the quarter notes per bar of samples of a class, or of no class; None if they are not known."""


class RollData(Protocol):
    """Data of piano rolls."""

    def rolls(self, split: str) -> Iterator[np.ndarray]:
        """Yield the whole pieces of ``train``, ``val`` or ``test``, uint8 ``[H, steps]``."""


class LabelledRollData(RollData, Protocol):
    """Data of piano rolls whose whole pieces have classes."""

    def roll_labels(self, split: str) -> Sequence[int]:
        """Return the class of each piece of ``rolls(split)``, in the same order; empty where there are no classes."""


class VoiceData(Protocol):
    """Data that may have a fixed number of voices, by which scores are published as nats per note slot."""

    @property
    def voices(self) -> int | None:
        """How many notes sound at a step; None where that is not a constant."""


class TokenData(Protocol):
    """Data whose batches have ``tokens`` that a tokenizer wrote into a cache."""

    @property
    def folder(self) -> Path:
        """The folder of the cache."""

    @property
    def token_metadata(self) -> Mapping[str, Any]:
        """Which tokenizer wrote the cache: ``tokenizer`` (its checksum), ``patch_nums`` and ``vocab``."""


def data_of(trainer: Trainer) -> LightningDataModule | None:
    """Return the data module of a trainer, None where it was given plain loaders."""
    return trainer.datamodule  # type: ignore[attr-defined]


def offered(owner: object, contract: type[Contract]) -> Contract | None:
    """Return a data module (or any object) if it has all members of a contract.

    Args:
        owner: such as ``trainer.datamodule``; None where a trainer was given plain loaders.
        contract: a protocol.

    Returns:
        The owner; None if a member is missing. A member that is None counts as missing.
    """
    return None if _missing(owner, contract) else owner  # type: ignore[return-value]


def required(owner: object, contract: type[Contract], by: object, mend: str = "leave it out") -> Contract:
    """Return a data module (or any object), which must have all members of a contract.

    Args:
        owner: such as ``trainer.datamodule``.
        contract: a protocol.
        by: who needs it, for the message.
        mend: what else the user may do about it.

    Raises:
        MisconfigurationException: members are missing. The message names all of them, and also what a data module lacks
            of the other contracts.
    """
    missing = _missing(owner, contract)
    if not missing:
        return owner  # type: ignore[return-value]
    needs, names = type(by).__name__, _listed(missing)
    if all(_declares(owner, name) for name in _members(TokenData)):
        mend = f"give data.source, the data module that has them, or {mend}"
    if owner is None:
        raise MisconfigurationException(
            f"{needs} needs a data module with {names}: give the trainer one (datamodule=...), or {mend}"
        )
    rest = [name for name in _members(WholeContract) if name not in missing and not _declares(owner, name)]
    also = f" (for other uses it lacks {_listed(rest)}, too)" if rest and isinstance(owner, LightningDataModule) else ""
    raise MisconfigurationException(f"{needs} needs {type(owner).__name__} to have {names}{also}; {mend}")


def class_count(data: object) -> int:
    """Return the number of classes of a data module, 0 where it has none or does not say."""
    classes = offered(data, ClassData)
    return 0 if classes is None else classes.num_classes


def class_names_of(data: object) -> list[str]:
    """Return the name of each class of a data module; empty if it has no classes or their names are not known yet."""
    named = offered(data, NamedClassData)
    return [] if named is None else list(named.known_class_names)


def _missing(owner: object, contract: type) -> list[str]:
    """Return the members of a contract that an object lacks, in the order in which they are declared."""
    return [name for name in _members(contract) if not _declares(owner, name) or getattr(owner, name) is None]


def _members(contract: type) -> list[str]:
    """Return the names of a contract's members."""
    return [name for kind in contract.__mro__ for name in vars(kind) if not name.startswith("_")]


def _declares(owner: object, name: str) -> bool:
    """Return whether an object has a member, without computing it: an error in that is not a missing member."""
    return getattr_static(owner, name, None) is not None


def _listed(names: Sequence[str]) -> str:
    """Join names for a message, such as "`a`, `b` and `c`"."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


class RankedDataModule(LightningDataModule):
    """Makes loaders that give each device a share of the data: each item once in evaluation, equally many in training.

    Attributes:
        batch_size: items of a batch on each device.
        num_workers: processes that load batches, for each device.
        items: what the data consists of, for messages.
        more: how to have more of them, for messages.
    """

    batch_size: int
    num_workers: int
    items = "images"
    more = "more images"

    def __init__(self) -> None:
        super().__init__()
        # A device without a batch to predict has nothing to do; too little to train or validate on raises below.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def training_loader(
        self, data: Dataset, loader: type[ResumableLoader] = ResumableLoader, **options: Any
    ) -> ResumableLoader:
        """Return a loader of full batches of a data set whose keys are those of `EpochSampler`.

        Raises:
            ValueError: there is no full batch for each device.
        """
        sampler = EpochSampler(data, *self.ranks())
        if len(sampler) < self.batch_size:
            raise ValueError(
                f"an epoch has {count_of(data)} {self.items}, {len(sampler)} for each device, less than a batch: "
                f"lower batch_size (now {self.batch_size}), or give {self.more}, for at least "
                f"{self.batch_size * sampler.num_replicas} {self.items} an epoch"
            )
        return loader(data, self.batch_size, sampler=sampler, drop_last=True, **self.loading(), **options)

    def ordered_loader(
        self, data: Dataset, split: str, loader: type[DataLoader] = DataLoader, **options: Any
    ) -> DataLoader:
        """Return a loader that gives each item of a split once over all devices, in order.

        Raises:
            ValueError: there are more devices than items.
        """
        sampler = ShardSampler(data, *self.ranks())
        if count_of(data) < sampler.num_replicas:
            # A device without a batch would log nothing, and the others would wait for it for ever.
            raise ValueError(
                f"the {split} split has {count_of(data)} {self.items} for {sampler.num_replicas} devices: use fewer "
                f"devices or {self.more}"
            )
        return loader(data, self.batch_size, sampler=sampler, **self.loading(), **options)

    def batches_loader(self, batches: Dataset, num_workers: int = 0) -> DataLoader:
        """Return a loader of items that are whole batches, such as requests; each goes to one device."""
        sampler = ShardSampler(batches, *self.ranks())
        return DataLoader(batches, batch_size=None, sampler=sampler, num_workers=num_workers)

    def loading(self) -> dict[str, Any]:
        """Return the options of loaders that do not change what is loaded."""
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0, "pin_memory": on_gpu}

    def ranks(self) -> tuple[int, int]:
        """Return the number of devices, and this one's number."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
