import warnings
from itertools import takewhile

import numpy as np
import pytest
import torch

from datamodules.images.dataset import EvaluationImages, ImageLoader, TrainingImages, collate
from datamodules.images.decoding import UnreadableImageError
from datamodules.images.source import ImagesInMemory
from datamodules.loading import EpochSampler, ShardSampler


class Some(ImagesInMemory):
    """Images that hold their number; some of them cannot be read."""

    bad: frozenset[int] = frozenset()

    def canvas(self, index: int) -> np.ndarray:
        if index in self.bad:
            raise UnreadableImageError(f"{index}.JPEG: cannot be read")
        return super().canvas(index)


def numbered(count: int, bad: tuple[int, ...] = ()) -> Some:
    canvases = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(4, axis=3)
    images = Some(canvases, np.arange(count) % 3)
    images.bad = frozenset(bad)
    return images


def training(count: int, bad: tuple[int, ...] = (), ranks: int = 1, **options: object) -> TrainingImages:
    return TrainingImages(
        numbered(count, bad), **{"seed": 0, "augment": None, "strict": False, "ranks": ranks, **options}
    )


def loader(data: torch.utils.data.Dataset, size: int, sampler: object, **options: object) -> ImageLoader:
    return ImageLoader(data, size, sampler=sampler, collate_fn=collate, **options)


def numbers(data: TrainingImages, epoch: int) -> list[int]:
    return [int(data[epoch, position][0]["canvas"][0, 0, 0]) for position in range(len(data))]


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    data = training(50)
    first, second = numbers(data, 0), numbers(data, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert numbers(training(50), 1) == second
    assert numbers(training(50, seed=1), 1) != second
    item = data[0, 7][0]
    assert int(item["label"]) == first[7] % 3
    assert (item["canvas"].dtype, item["label"].dtype) == (torch.uint8, torch.int64)
    assert data[7][0]["canvas"].equal(item["canvas"])  # a bare index is of epoch 0


def test_augmentation_depends_on_epoch_and_position_alone() -> None:
    def shade(canvas: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.full_like(canvas, random.integers(256))

    data = training(20, augment=shade)
    shades = numbers(data, 3)
    assert len(set(shades)) > 10
    assert shades[::-1] == [int(data[3, position][0]["canvas"][0, 0, 0]) for position in reversed(range(20))]
    assert shades != numbers(data, 4)


def test_unreadable_images_are_replaced_by_the_next_of_the_rank() -> None:
    whole, data = numbers(training(12, ranks=2), 0), training(12, bad=(3, 5), ranks=2)
    found = [data[0, position] for position in range(12)]
    for position, (item, errors) in enumerate(found):
        following = [whole[(position + 2 * k) % 12] for k in range(6)]
        passed = list(takewhile(lambda number: number in (3, 5), following))
        assert errors == [f"{number}.JPEG: cannot be read" for number in passed]
        assert int(item["canvas"][0, 0, 0]) == following[len(passed)]


def test_strict_reading() -> None:
    for data, key in (
        (training(3, (0, 1, 2), strict=True), (0, 0)),
        (EvaluationImages(numbered(3, (0,)), None, True), 0),
    ):
        with pytest.raises(
            ValueError, match=r"strict: \d\.JPEG: cannot be read; remove the image, or set strict to false"
        ):
            data[key]


def test_training_stops_if_nothing_can_be_read() -> None:
    with pytest.raises(ValueError, match=r"^5 images in a row cannot be read: \d\.JPEG: cannot be read; "):
        training(5, (0, 1, 2, 3, 4))[0, 0]
    with pytest.raises(ValueError, match=r"^100 images in a row cannot be read: .*; and 95 more"):
        training(250, tuple(range(250)))[0, 0]


def test_a_damaged_page_of_many_images_is_one_place() -> None:
    """Of 250 images the last 130 share a damaged page: each of them counts, and they do not stop training."""
    data = training(250)

    def canvas(index: int) -> np.ndarray:
        if index >= 120:
            raise UnreadableImageError(f"row {index}: damaged page", place="the page")
        return np.full((1, 1, 4), index, np.uint8)

    data.images.canvas = canvas
    data._order, data._epoch = np.roll(np.arange(250), -120), 0
    item, errors = data[0, 0]
    assert int(item["canvas"][0, 0, 0]) == 0
    assert errors == [f"row {index}: damaged page" for index in range(120, 250)]


def test_evaluation_is_spread_evenly_and_in_order() -> None:
    def indices(most: int | None) -> list[int]:
        data = EvaluationImages(numbered(10), most, False)
        return [int(data[k][0]["canvas"][0, 0, 0]) for k in range(len(data))]

    assert indices(None) == indices(99) == list(range(10))
    assert indices(5) == [0, 2, 4, 6, 8]
    assert indices(3) == [0, 3, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_unreadable_images_out_and_counts_them(workers: int) -> None:
    data = EvaluationImages(numbered(9, (1, 4, 5)), None, False)
    batches = loader(data, 2, ShardSampler(data, 1, 0), num_workers=workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Python 3.12 and newer warn of forks beside threads
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        # torch warns where fewer CPUs than workers are visible
        warnings.filterwarnings("ignore", "This DataLoader will create 2 worker processes", UserWarning)
        seen = [batch["canvas"][:, 0, 0, 0].tolist() for batch in batches]
        again = [batch["canvas"][:, 0, 0, 0].tolist() for batch in batches]
    assert seen == again == [[0], [2, 3], [6, 7], [8]]  # the batch of 4 and 5 is left out
    assert batches.unreadable == tuple(f"{number}.JPEG: cannot be read" for number in (1, 4, 5))
    assert [str(warning.message) for warning in caught] == [
        "1 image cannot be read so far, left out; the latest: 1.JPEG: cannot be read",
        "3 images cannot be read so far, left out; the latest: 5.JPEG: cannot be read",
    ]


def test_the_end_of_a_pass_reports_the_rest() -> None:
    data = EvaluationImages(numbered(8, (0, 1, 6)), None, False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(loader(data, 1, ShardSampler(data, 1, 0)))
    assert [str(warning.message).partition(" c")[0] for warning in caught] == ["1 image", "2 images", "3 images"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(loader(data, 2, ShardSampler(data, 1, 0)))
    assert [str(warning.message)[:8] for warning in caught] == ["2 images", "3 images"]


def test_nothing_to_evaluate_is_an_error() -> None:
    data = EvaluationImages(numbered(3, (0, 1, 2)), None, False)
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(ValueError, match=r"none of the images can be read: 0\.JPEG: cannot be read; 1\.JPEG"),
    ):
        list(loader(data, 1, ShardSampler(data, 1, 0)))


@pytest.mark.filterwarnings("ignore:.*images? cannot be read")
def test_ranks_have_equally_many_batches_whatever_is_unreadable() -> None:
    shares = []
    for rank in range(3):
        data = training(20, (4, 5, 6, 7), ranks=3)
        sampler = EpochSampler(data, 3, rank)
        shares.append([batch["canvas"][:, 0, 0, 0].tolist() for batch in loader(data, 2, sampler, drop_last=True)])
    assert [len(share) for share in shares] == [3, 3, 3]
    assert all(len(batch) == 2 for share in shares for batch in share)


def test_ranks_are_disjoint_and_complete() -> None:
    data = training(21, ranks=3)
    shares = [[int(data[key][0]["canvas"][0, 0, 0]) for key in EpochSampler(data, 3, rank)] for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(21))


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_a_loader_resumes_in_the_middle_with_other_workers(before: int, after: int) -> None:
    def made(workers: int) -> ImageLoader:
        data = training(40)
        made = loader(data, 4, EpochSampler(data, 1, 0), drop_last=True, num_workers=workers)
        made.sampler.set_epoch(2)
        return made

    first = made(before)
    batches = iter(first)
    for _ in range(3):
        next(batches)
    state = first.state_dict()
    second = made(after)
    second.load_state_dict(state)
    rest = [batch["canvas"] for batch in batches]
    assert len(rest) == 7
    assert all(a.equal(batch["canvas"]) for a, batch in zip(rest, second, strict=True))
