"""What data modules share: loaders that know which rank they are on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import EpochSampler, ResumableLoader, ShardSampler


class RankedDataModule(LightningDataModule):
    """Loaders of a share of the data for each device; in evaluation each item once, in training equally many.

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
        """Full batches of a data set whose keys are those of `EpochSampler`.

        Raises:
            ValueError: there is no full batch for each device.
        """
        sampler = EpochSampler(data, *self.ranks())
        if len(sampler) < self.batch_size:
            raise ValueError(
                f"an epoch has {len(data)} {self.items}, {len(sampler)} for each device, which is no full batch: lower "
                f"batch_size (now {self.batch_size}), or give {self.more}, for at least "
                f"{self.batch_size * sampler.num_replicas} {self.items} an epoch"
            )
        return loader(data, self.batch_size, sampler=sampler, drop_last=True, **self.loading(), **options)

    def ordered_loader(
        self, data: Dataset, split: str, loader: type[DataLoader] = DataLoader, **options: Any
    ) -> DataLoader:
        """Each item of a split once over all devices, in order.

        Raises:
            ValueError: there are more devices than items.
        """
        sampler = ShardSampler(data, *self.ranks())
        if len(data) < sampler.num_replicas:
            # A device without a batch would log nothing, and the others would wait for it for ever.
            raise ValueError(
                f"the {split} split has {len(data)} {self.items} for {sampler.num_replicas} devices: use fewer devices "
                f"or {self.more}"
            )
        return loader(data, self.batch_size, sampler=sampler, **self.loading(), **options)

    def batches_loader(self, batches: Dataset, num_workers: int = 0) -> DataLoader:
        """Items that are whole batches, such as requests, each on one device."""
        sampler = ShardSampler(batches, *self.ranks())
        return DataLoader(batches, batch_size=None, sampler=sampler, num_workers=num_workers)

    def loading(self) -> dict[str, Any]:
        """Loader options that do not change what is loaded."""
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0, "pin_memory": on_gpu}

    def ranks(self) -> tuple[int, int]:
        """Number of devices, and this one's number."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)


def check_least(**options: tuple[int | None, int]) -> None:
    """Refuse options that are below their least value; None is never.

    Raises:
        ValueError: naming the first such option.
    """
    for name, (value, least) in options.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
