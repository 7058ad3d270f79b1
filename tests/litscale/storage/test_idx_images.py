import gzip
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx, picture, write_idx

from litscale.storage.idx_images import IdxImages, read_idx, to_canvases
from litscale.storage.splits import split_of


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", [".", "raw", "FashionMNIST/raw"])
def test_images_are_read_as_they_were_written(tmp_path: Path, packed: bool, place: str) -> None:
    write_idx(tmp_path / place, packed=packed)
    images, labels = IdxImages(tmp_path).read("test")
    assert (images.dtype, images.shape, labels.dtype) == (np.uint8, (20, 28, 28), np.int64)
    assert labels.tolist() == [*range(10), *range(10)]
    assert all(np.array_equal(image, picture(number, number % 10)) for number, image in enumerate(images))


def test_one_in_twelve_of_each_class_validates(tmp_path: Path) -> None:
    write_idx(tmp_path, {"train": 240})
    (train, train_labels), (val, val_labels) = (IdxImages(tmp_path).read(split) for split in ("train", "val"))
    assert Counter(train_labels.tolist()) == dict.fromkeys(range(10), 22)
    assert Counter(val_labels.tolist()) == dict.fromkeys(range(10), 2)
    # Class 3 has the images 3, 13, ..., 233; those with the two smallest hashes validate.
    chosen = sorted(range(3, 240, 10), key=lambda number: sha256(str(number).encode()).hexdigest())[:2]
    expected = [picture(number, 3) for number in sorted(chosen)]
    assert np.array_equal(val[val_labels == 3], expected)
    assert not any(np.array_equal(image, one) for image in train[train_labels == 3] for one in expected)


def test_shares_of_classes_of_unequal_size() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 3])
    splits = split_of(labels, val=0.2, test=0.1)
    counts = {label: Counter(splits[labels == label].tolist()) for label in range(3)}
    assert counts == {
        0: {"train": 7, "val": 2, "test": 1},
        1: {"train": 14, "val": 4, "test": 2},
        2: {"train": 2, "val": 1},
    }


def test_canvases_by_hand() -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, :3] = [7, 255, 255]
    image[0, 1, 0] = 2
    image[0, 26:, 26:] = [[1, 2], [0, 0]]
    large, small = to_canvases(image, 32), to_canvases(image, 16)
    assert (large.dtype, large.shape, small.dtype, small.shape) == (np.uint8, (1, 32, 32), np.uint8, (1, 16, 16))
    assert np.array_equal(large[0, 2:30, 2:30], image[0])
    assert large.sum() == image.sum()
    # (7 + 255 + 2 + 0) / 4 = 66, 255 / 4 = 63.75 and 3 / 4
    assert {place: int(small[0][place]) for place in ((1, 1), (1, 2), (14, 14))} == {
        (1, 1): 66,
        (1, 2): 64,
        (14, 14): 1,
    }
    assert np.count_nonzero(small) == 3


def test_areas_of_white_stay_white() -> None:
    assert to_canvases(np.full((2, 28, 28), 255, np.uint8), 16)[:, 1:15, 1:15].min() == 255


def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    ways = r"torchvision.*FashionMNIST/raw; Debian's package dataset-fashion-mnist.*github\.com/zalandoresearch"
    with pytest.raises(FileNotFoundError, match=rf"folder: there is no folder .*none; get the data with {ways}"):
        IdxImages(tmp_path / "none").read("train")
    with pytest.raises(FileNotFoundError, match=rf"neither train-images-idx3-ubyte nor .*\.gz in {tmp_path}.*{ways}"):
        IdxImages(tmp_path).read("train")
    write_idx(tmp_path, {"train": 12})
    with pytest.raises(FileNotFoundError, match="neither t10k-images-idx3-ubyte"):
        IdxImages(tmp_path).read("test")


def test_several_data_sets_must_be_told_apart(tmp_path: Path) -> None:
    for name in ("FashionMNIST", "MNIST"):
        write_idx(tmp_path / name / "raw")
    with pytest.raises(ValueError, match=r"holds several data sets, name one of .*/FashionMNIST/raw, .*/MNIST/raw"):
        IdxImages(tmp_path).read("test")
    assert len(IdxImages(tmp_path / "MNIST").read("test")[0]) == 20


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(19))))
    with pytest.raises(ValueError, match=r"t10k-images.* holds 20 images, .*t10k-labels.* 19 labels: get both again"):
        IdxImages(tmp_path).read("test")


WHOLE = idx(np.zeros((3, 28, 28)))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a", WHOLE[:-1], r"it does not end after the 3 items"),
        ("a", WHOLE + b"\0", r"it does not end after the 3 items"),
        ("a", WHOLE[:9], "buffer size"),
        ("a", b"", "it starts with , not 00 00 08 03"),
        ("a", idx(np.zeros(3)), "it starts with 00 00 08 01, not 00 00 08 03"),
        ("a", b"\0\0\x0d\x03" + WHOLE[4:], "it starts with 00 00 0d 03"),
        ("a", idx(np.zeros((3, 28, 27))), r"its items are \[28, 27\], not \[28, 28\]"),
        ("a", WHOLE[:4] + b"\xff" * 4 + WHOLE[8:], "declares 4294967295 items, too many for a file of its size"),
        ("a.gz", gzip.compress(WHOLE, mtime=0)[:-9], "ended before"),
        ("a.gz", WHOLE, "Not a gzipped file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}: damaged.*{reason}.*: get it again, with torchvision"):
        read_idx(path, (28, 28))
