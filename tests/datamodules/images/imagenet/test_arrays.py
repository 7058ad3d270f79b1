import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import WNIDS, batch, published, write_arrays
from PIL import Image

from datamodules.images.decoding import Crop, UnreadableImageError
from datamodules.images.imagenet.arrays import ArraySource

SORTED = {1: 2, 2: 0, 3: 1}  # the release's numbers -> sorted wnids


def source(root: Path, labels: bool = True, class_map: str | None = None) -> ArraySource:
    return ArraySource(folder=root, labels=labels, class_map=class_map, cache_dir=root / "cache")


@pytest.mark.parametrize("kind", ["npz", "compressed", "pickle"])
def test_images_and_labels(tmp_path: Path, kind: str) -> None:
    batches = write_arrays(tmp_path, kind, [5, 3, 4, 6])
    found = source(tmp_path)
    assert found.class_names() == WNIDS
    for split, names in (("train", list(batches)[:3]), ("val", ["val_data"])):
        found.prepare(split)
        images = found.open(split, Crop(8, upsample=False))
        data = np.concatenate([batches[name]["data"] for name in names]).reshape(-1, 3, 8, 8)
        assert np.array_equal(np.stack([images.canvas(k) for k in range(len(images))]), data)
        numbers = [number for name in names for number in batches[name]["labels"]]
        assert images.labels.tolist() == [SORTED[number] for number in numbers]
    # What can be mapped as it is needs no copy.
    assert len(list(tmp_path.glob("cache/*"))) == (0 if kind == "npz" else 4)


def test_ten_batches_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    batches = write_arrays(tmp_path, "npz", [1] * 12)
    images = source(tmp_path).open("train", Crop(8, upsample=False))
    expected = np.concatenate([batches[f"train_data_batch_{number}"]["data"] for number in range(1, 12)])
    assert np.array_equal(np.stack([images.canvas(k).ravel() for k in range(11)]), expected)


def test_other_sizes_are_cut_as_images_are(tmp_path: Path) -> None:
    batches = write_arrays(tmp_path, "npz", [2, 2], side=17)
    images = source(tmp_path).open("train", Crop(8, upsample=False))
    pixels = batches["train_data_batch_1"]["data"][1].reshape(3, 17, 17).transpose(1, 2, 0)
    assert np.array_equal(images.canvas(1), published(Image.fromarray(pixels), 8))
    with pytest.raises(ValueError, match=r"size: image 0 of .* is 17 x 17 pixels, smaller than the canvas of 64"):
        source(tmp_path).open("train", Crop(64, upsample=False)).canvas(0)


def test_pixels_are_mapped_not_loaded_and_not_pickled(tmp_path: Path) -> None:
    write_arrays(tmp_path, "pickle", [50, 50], side=32)
    found = source(tmp_path)
    found.prepare("train")
    images = found.open("train", Crop(32, upsample=False))
    images.canvas(0)
    assert all(isinstance(pixels, np.memmap) for pixels in images._pixels.values())
    copy = pickle.loads(pickle.dumps(images))
    assert len(pickle.dumps(images)) < 3000
    assert np.array_equal(copy.canvas(49), images.canvas(49))


def test_a_batch_is_converted_once_and_anew_if_it_changes(tmp_path: Path) -> None:
    write_arrays(tmp_path, "pickle", [2, 2])
    found = source(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no converted batch at .*call prepare_data\(\) first"):
        found.open("val", Crop(8, upsample=False))
    found.prepare("val")
    (first,) = (tmp_path / "cache").iterdir()
    written = first.stat().st_mtime_ns
    found.prepare("val")
    assert first.stat().st_mtime_ns == written
    changed = batch(4, 8, seed=9)
    (tmp_path / "val_data").write_bytes(pickle.dumps(changed))
    found.prepare("val")
    assert len(found.open("val", Crop(8, upsample=False))) == 4


def test_missing_batches(tmp_path: Path) -> None:
    write_arrays(tmp_path, "npz", [1, 1, 1, 1])
    (tmp_path / "train_data_batch_2.npz").unlink()
    (tmp_path / "val_data.npz").unlink()
    for split, name in (("train", "train_data_batch_2"), ("val", "val_data")):
        with pytest.raises(FileNotFoundError, match=f"folder: there is no {name} .or {name}.npz. in"):
            source(tmp_path).prepare(split)


def test_labels_need_the_map(tmp_path: Path) -> None:
    write_arrays(tmp_path, "npz", [3, 1])
    (tmp_path / "map_clsloc.txt").rename(tmp_path / "elsewhere.txt")
    with pytest.raises(
        ValueError, match=r"the release's own order: give its map_clsloc\.txt .* or set labels to false"
    ):
        source(tmp_path).open("train", Crop(8, upsample=False))
    assert source(tmp_path, labels=False).open("train", Crop(8, upsample=False)).labels is None
    given = source(tmp_path, class_map=str(tmp_path / "elsewhere.txt"))
    assert given.open("train", Crop(8, upsample=False)).labels is not None


@pytest.mark.parametrize("kind", ["npz", "compressed", "pickle"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((3, 193), np.uint8)}, r"data must be uint8 \[n, 3 \* side \* side\]"),
        ({"data": np.zeros((3, 192))}, "data must be uint8"),
        ({"data": np.zeros(192, np.uint8)}, "data must be uint8"),
        ({"labels": [1, 2]}, "labels must be 3 whole numbers, one for each row of data"),
        ({"labels": [0.5, 1.0, 2.0]}, "labels must be 3 whole numbers"),
        ({"labels": [1, 2, 4]}, "labels are out of range: 4"),
        ({"labels": [0, 1, 2]}, "labels are out of range: 0"),
        ({"labels": None}, "it holds no"),
        ({"data": None}, "it holds no"),
    ],
)
def test_wrong_batches(tmp_path: Path, kind: str, changes: dict[str, object], message: str) -> None:
    write_arrays(tmp_path, kind, [3, 1])
    content = {name: value for name, value in {**batch(3, 8, 0), **changes}.items() if value is not None}
    if kind == "pickle":
        (tmp_path / "train_data_batch_1").write_bytes(pickle.dumps(content))
    else:
        save = np.savez if kind == "npz" else np.savez_compressed
        save(tmp_path / "train_data_batch_1.npz", **content)

    def read() -> None:
        source(tmp_path).prepare("train")
        source(tmp_path).open("train", Crop(8, upsample=False))

    with pytest.raises(ValueError, match=message):
        read()


@pytest.mark.parametrize("kind", ["npz", "compressed", "pickle"])
def test_a_damaged_batch_is_left_out_and_named(tmp_path: Path, kind: str) -> None:
    batches = write_arrays(tmp_path, kind, [30, 20, 1])
    (path,) = tmp_path.glob("train_data_batch_1*")
    path.write_bytes(path.read_bytes()[:2000])
    source(tmp_path).prepare("train")
    with pytest.warns(UserWarning, match=rf"^1 of 2 train batches cannot be read, and .* left out: {path}: damaged"):
        images = source(tmp_path).open("train", Crop(8, upsample=False))
    assert len(images) == 20
    assert np.array_equal(images.canvas(3).ravel(), batches["train_data_batch_2"]["data"][3])

    def strictly() -> None:
        strict = replace(source(tmp_path), strict=True)
        strict.prepare("train")
        strict.open("train", Crop(8, upsample=False))

    with pytest.raises(ValueError, match=rf"^strict: {path}: damaged, .*; get it again, or set strict to false"):
        strictly()


def test_a_batch_that_was_damaged_is_converted_when_it_is_whole(tmp_path: Path) -> None:
    write_arrays(tmp_path, "pickle", [3, 1])
    whole = (tmp_path / "val_data").read_bytes()
    (tmp_path / "val_data").write_bytes(whole[:200])
    source(tmp_path).prepare("val")
    with pytest.raises(ValueError, match=r"^none of the val batches in .* can be read: .*val_data: damaged, truncated"):
        source(tmp_path).open("val", Crop(8, upsample=False))
    (tmp_path / "val_data").write_bytes(whole)
    source(tmp_path).prepare("val")
    assert len(source(tmp_path).open("val", Crop(8, upsample=False))) == 1


def test_a_batch_that_is_replaced_makes_its_images_unreadable(tmp_path: Path) -> None:
    write_arrays(tmp_path, "npz", [2, 1])
    images = source(tmp_path).open("train", Crop(8, upsample=False))
    path = tmp_path / "train_data_batch_1.npz"
    path.write_bytes(b"something else")
    with pytest.raises(UnreadableImageError, match=rf"^image 1: {path}: damaged") as caught:
        images.canvas(1)
    assert caught.value.place == str(path)


def test_code_in_a_pickle_is_no_damage(tmp_path: Path) -> None:
    write_arrays(tmp_path, "pickle", [2, 1])
    (tmp_path / "train_data_batch_1").write_bytes(pickle.dumps({"data": print, "labels": [1]}))
    with pytest.raises(ValueError, match=r"train_data_batch_1: the pickle asks for builtins\.print"):
        source(tmp_path).prepare("train")


def test_an_unwritable_cache_names_its_option(tmp_path: Path) -> None:
    write_arrays(tmp_path, "pickle", [1, 1])
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=r"could not write the cache of images .* set the option cache_dir"):
        source(tmp_path).prepare("train")
