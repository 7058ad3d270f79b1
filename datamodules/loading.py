"""Which rank and which moment draws what: samplers that Lightning leaves alone, and a loader that resumes exactly.

Lightning replaces the sampler of a loader under DDP, and in prediction, unless it is a `DistributedSampler`; ours are,
also with one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


def count_of(data: Dataset) -> int:
    """Number of items; every data set here has one, though torch's base class does not say so."""
    return len(data)  # type: ignore[arg-type]


class EpochSampler(DistributedSampler):
    """Draws ``(epoch, index)`` for `RandomCrops`: rank r of R takes the indices r, r + R, ...

    Every rank draws equally many; up to R - 1 indices at the end are left out.

    Args:
        dataset: has a length.
        num_replicas: number of ranks.
        rank: this one's number.

    Attributes:
        first: items that the next iteration passes over.
        ahead: epochs that the items are ahead of ``set_epoch``.
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
    """Each index once over all ranks, in order; the first ranks may have one more than the others.

    `DistributedSampler` would repeat items to even that out, which biases means and repeats samples.

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
    """A `DataLoader` over an `EpochSampler` whose state is a place: an epoch, and the batches taken from it.

    Lightning stores it in its checkpoints. Items are functions of epoch and index, so the place is all there is to
    know: a resumed run reads nothing to get there, and may have another number of workers (torchdata's
    `StatefulDataLoader` keeps a state per worker and refuses another number).
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
        """The place: ``epoch``, ``batches`` taken from it, and how far it is ``ahead`` of Lightning's epoch."""
        return self._place or {"epoch": self._epoch, "batches": self._taken, "ahead": self._ahead}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at the place, or at the start of the next epoch if Lightning is past this one."""
        self._place = dict(state)
