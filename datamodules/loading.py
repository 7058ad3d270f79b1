"""Samplers that share out items over processes, and a loader that resumes in the middle of an epoch.

Under DDP, and in prediction, Lightning replaces every sampler that is no `DistributedSampler`. These samplers are of
that class, also with one process, so that they stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


def count_of(data: Dataset) -> int:
    """Return the number of items, which every data set here has, though torch's base class does not declare it."""
    return len(data)  # type: ignore[arg-type]


class EpochSampler(DistributedSampler):
    """Yields the keys ``(epoch, index)`` of training items; rank r of R yields the indices r, r + R, ...

    All ranks yield equally many keys, so that up to R - 1 indices at the end of the data are left out.

    Args:
        dataset: has a length.
        num_replicas: number of ranks.
        rank: this one's number.

    Attributes:
        first: number of keys that the next iteration skips.
        ahead: number of epochs by which the keys are ahead of the epoch that Lightning sets with ``set_epoch``.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False, drop_last=True)
        self.num_samples = count_of(dataset) // num_replicas
        self.total_size = self.num_samples * num_replicas
        self.first = self.ahead = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices = range(self.rank, self.total_size, self.num_replicas)[self.first :]
        return zip(repeat(self.epoch + self.ahead), indices, strict=False)


class ShardSampler(DistributedSampler):
    """Yields each index once over all ranks, in order; the first ranks may yield one index more than the others.

    `DistributedSampler` itself repeats items until all ranks have equally many, which biases means and repeats samples.

    Args:
        dataset: has a length.
        num_replicas: number of ranks.
        rank: this one's number.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.total_size = count_of(dataset)
        self.num_samples = len(range(rank, self.total_size, num_replicas))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.total_size, self.num_replicas))


class ResumableLoader(DataLoader):
    """A `DataLoader` over an `EpochSampler` that resumes at any batch.

    Its state is an epoch and the number of batches taken from it, which Lightning stores in its checkpoints. Nothing
    else is needed, since each item is a function of its epoch and its index alone, as long as there are as many items:
    the state tells when files were lost or added meanwhile. A resumed run reads none of the earlier batches, and may
    have another number of workers, which torchdata's `StatefulDataLoader` refuses.
    """

    _place: dict[str, int] | None = None  # where the next iteration resumes
    _epoch = _taken = _ahead = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, on purpose: Lightning calls `iter` before it tells the sampler the epoch, and workers that
        # started at once would draw from the wrong one.
        place, self._place = self._place, None
        self._taken = 0
        if isinstance(self.sampler, EpochSampler):
            if place is not None and self.sampler.epoch + place["ahead"] == place["epoch"]:
                self.sampler.ahead, self._taken = place["ahead"], place["batches"]
                items = count_of(self.dataset)
                if place.get("items", items) != items:
                    rank_zero_warn(
                        f"the epoch was begun with {place['items']} items of data, and there are {items} now: files "
                        "were lost or added, so the rest of it is another one"
                    )
            elif place is not None:
                # It was an epoch's end. The next one follows, whatever Lightning's number for it: with max_steps it
                # counts an epoch twice that it resumes at its end.
                self.sampler.ahead = place["epoch"] + 1 - self.sampler.epoch
            self._ahead = self.sampler.ahead
            self._epoch = self.sampler.epoch + self._ahead
            self.sampler.first = self._taken * (self.batch_size or 1)
        for batch in super().__iter__():
            self._taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return ``epoch``, ``batches`` taken, how far it is ``ahead`` of Lightning's epoch, and ``items`` of data."""
        if self._place is not None:
            return self._place
        counts = {"batches": self._taken, "ahead": self._ahead, "items": count_of(self.dataset)}
        return {"epoch": self._epoch, **counts}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at a state, or at the start of the epoch after it if Lightning is past that epoch."""
        self._place = dict(state)
