import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import CLASS_MAP, NUMBERS, WNIDS, encoded, photo, published, write_folder
from PIL import Image

from datamodules.images.decoding import Crop, UnreadableImageError
from datamodules.images.imagenet.folder import FolderImages, FolderSource

CROP = Crop(16, upsample=False)


def opened(root: Path, split: str = "val", labels: bool = True, **options: str | None) -> FolderImages:
    return FolderSource(root, labels, **{"class_map": None, "val_labels": None, **options}).open(split, CROP)


@pytest.fixture
def flat(tmp_path: Path) -> tuple[Path, list[tuple[Path, int]]]:
    """A training folder, and validation images in no class folders, shuffled over the classes."""
    write_folder(tmp_path, "train", 1)
    images = write_folder(tmp_path, "sorted", 2)
    (tmp_path / "val").mkdir()
    moved = []
    for number, k in enumerate((4, 0, 2, 5, 1, 3), 1):
        path, label = images[k]
        moved.append((path.rename(tmp_path / "val" / f"ILSVRC2012_val_{number:08}.JPEG"), label))
    shutil.rmtree(tmp_path / "sorted")
    return tmp_path, moved


def test_images_are_those_of_pillow(tmp_path: Path) -> None:
    expected = write_folder(tmp_path, "train", 3)
    images = opened(tmp_path, "train")
    assert len(images) == 9
    assert images.labels.tolist() == [label for _, label in expected]
    for index, (path, _) in enumerate(expected):
        assert np.array_equal(images.canvas(index), published(Image.open(path).convert("RGB"), 16))


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", 1)
    folder = tmp_path / "train" / WNIDS[0]
    (folder / "notes.txt").write_text("text")
    (folder / "._n01440764_0000.JPEG").write_text("another system's")
    (folder / "more.png").write_bytes(encoded(photo(20, 20)))
    (tmp_path / "train" / ".hidden").mkdir()
    assert opened(tmp_path, "train").labels.tolist() == [0, 0, 1, 2]


def test_validation_has_the_classes_of_training(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", 1)
    write_folder(tmp_path, "val", 1)
    shutil.rmtree(tmp_path / "val" / WNIDS[0])
    assert opened(tmp_path).labels.tolist() == [1, 2]
    shutil.rmtree(tmp_path / "train" / WNIDS[2])
    with pytest.raises(ValueError, match=f"val has class folders that train does not have: {WNIDS[2]}"):
        opened(tmp_path)


def test_flat_validation(flat: tuple[Path, list[tuple[Path, int]]]) -> None:
    root, expected = flat
    labels = [label for _, label in expected]
    with pytest.raises(ValueError, match=r"val are not in class folders: .*give their classes as val_labels"):
        opened(root)
    assert opened(root, labels=False).labels is None
    (root / "list.txt").write_text("\n".join(WNIDS[label] for label in labels))
    assert opened(root, val_labels=str(root / "list.txt")).labels.tolist() == labels

    truth = root / "ILSVRC2012_validation_ground_truth.txt"  # found without an option
    truth.write_text("\n".join(str(NUMBERS[WNIDS[label]]) for label in labels))
    with pytest.raises(ValueError, match=r"start at 1, so they are the devkit's.*give map_clsloc\.txt"):
        opened(root)
    (root / "map_clsloc.txt").write_text(CLASS_MAP)
    images = opened(root)
    assert images.labels.tolist() == labels
    for index, (path, _) in enumerate(expected):
        assert np.array_equal(images.canvas(index), published(Image.open(path).convert("RGB"), 16))
    shutil.rmtree(root / "train")  # the classes are then those of the map
    assert opened(root).labels.tolist() == labels


def test_missing_folders_and_images(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"folder: there is no folder .*train; give one that holds train and val"
    ):
        opened(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder: no image \(.jpeg, .*\) in .*train"):
        opened(tmp_path, "train", labels=False)
    write_folder(tmp_path, "val", 1)
    (tmp_path / "val" / "n09999999").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder: no image .* in .*n09999999"):
        opened(tmp_path)


def test_images_without_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", 1)
    loose = tmp_path / "train" / "loose.png"
    loose.write_bytes(encoded(photo(20, 20)))
    with pytest.raises(ValueError, match=r"train has class folders and 1 images beside them: loose\.png"):
        opened(tmp_path, "train")
    for wnid in WNIDS:
        shutil.rmtree(tmp_path / "train" / wnid)
    with pytest.raises(ValueError, match="train are not in class folders: move them"):
        opened(tmp_path, "train")
    with pytest.raises(ValueError, match=r"has no class folders: .*as class_map, or set labels to false"):
        FolderSource(tmp_path, True, None, None).class_names()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (path, _), *_ = write_folder(tmp_path, "train", 1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableImageError, match=f"{WNIDS[0]}_0000.JPEG: cannot be read"):
        opened(tmp_path, "train").canvas(0)
