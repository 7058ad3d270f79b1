from pathlib import Path

import numpy as np
import pytest
from image_files import CLASS_MAP, NUMBERS, WNIDS
from scipy.io import savemat

from datamodules.images.imagenet.classes import find_file, listed_labels, map_labels, read_class_map

BY_NUMBER = {number: wnid for wnid, number in NUMBERS.items()}
NAMES = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 5)]
LABELS = [2, 0, 1, 1]


def matlab(path: Path) -> Path:
    """The devkit's meta.mat, with an inner node of WordNet."""
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(number, wnid, "name", 0) for number, wnid in BY_NUMBER.items()] + [(4, "n00001740", "entity", 2)]
    savemat(path, {"synsets": np.array(rows, dtype=kind)[:, None]})
    return path


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(map(str, lines)) + "\n")
    return path


def test_class_maps(tmp_path: Path) -> None:
    (tmp_path / "map_clsloc.txt").write_text(CLASS_MAP)
    assert read_class_map(tmp_path / "map_clsloc.txt") == BY_NUMBER
    assert read_class_map(matlab(tmp_path / "meta.mat")) == BY_NUMBER


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.txt", "n01440764 tench, Tinca tinca", r"has the line 'n01440764 tench, .*give map_clsloc\.txt"),
        ("map.txt", "n01440764 1 a\nn01440764 2 b", "has no classes, or some of them twice"),
        ("map.txt", "n01440764 1 a\nn01443537 1 b", "some of them twice"),
        ("map.txt", "", "has no classes"),
        ("meta.mat", "text", r"is not the meta\.mat of the ImageNet devkit"),
    ],
)
def test_wrong_class_maps(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"class_map: .*{message}"):
        read_class_map(tmp_path / name)


TABLE = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ({"other": 1}, None),
        ({"synsets": 1}, None),
        ({"synsets": np.array([(1,)], TABLE[:1])}, None),
        ({"synsets": np.array([("one", "n01440764", 0)], TABLE)}, None),
        ({"synsets": np.array([(np.zeros(0), "n01440764", 0)], TABLE)}, None),
        ({"synsets": np.array([(1, "n01440764", 0)], TABLE)}, 200),
        ({"synsets": np.array([(1, "n01440764", 0)], TABLE)}, 130),
        ({"synsets": np.array([(1, "n01440764", 0)], TABLE)}, 0),
    ],
    ids=["no synsets", "no table", "no column", "no number", "empty", "cut off", "cut off at the start", "nothing"],
)
def test_files_of_matlab_that_are_no_class_maps(tmp_path: Path, content: dict[str, object], kept: int | None) -> None:
    path = tmp_path / "meta.mat"
    savemat(path, content)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"class_map: .*is not the meta\.mat of the ImageNet devkit"):
        read_class_map(path)


def test_a_file_of_matlab_7_3_is_no_class_map(tmp_path: Path) -> None:
    path = tmp_path / "meta.mat"
    path.write_bytes(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM")
    with pytest.raises(ValueError, match=r"is not the meta\.mat of the ImageNet devkit \(.*v7\.3"):
        read_class_map(path)


def test_files_are_found(tmp_path: Path) -> None:
    assert find_file("class_map", None, tmp_path, ("a", "b")) is None
    write(tmp_path / "b")
    assert find_file("class_map", None, tmp_path, ("a", "b")) == tmp_path / "b"
    assert find_file("class_map", str(write(tmp_path / "c")), tmp_path, ("a", "b")) == tmp_path / "c"
    with pytest.raises(FileNotFoundError, match="class_map: there is no file nowhere"):
        find_file("class_map", "nowhere", tmp_path, ("b",))


def test_numbers_of_the_release_become_the_sorted_order() -> None:
    assert map_labels(np.array([1, 2, 3, 1]), BY_NUMBER, WNIDS, Path("x")).tolist() == [2, 0, 1, 2]
    with pytest.raises(
        ValueError, match=r"x: labels are out of range: 0; 7; the class map numbers 3 classes from 1 to 3"
    ):
        map_labels(np.array([1, 0, 7]), BY_NUMBER, WNIDS, Path("x"))


def test_lists_of_classes(tmp_path: Path) -> None:
    def found(path: Path, class_map: dict[int, str] | None = BY_NUMBER) -> list[int]:
        return listed_labels(path, NAMES, WNIDS, class_map).tolist()

    wnids = [WNIDS[label] for label in LABELS]
    assert found(write(tmp_path / "wnids.txt", *wnids), None) == LABELS
    assert found(write(tmp_path / "indices.txt", *LABELS), None) == LABELS
    assert found(write(tmp_path / "indices.txt", *LABELS)) == LABELS
    assert found(write(tmp_path / "devkit.txt", *(NUMBERS[wnid] for wnid in wnids))) == LABELS
    rows = [f"{name[:-5]},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for name, wnid in zip(NAMES, wnids, strict=True)]
    assert found(write(tmp_path / "LOC_val_solution.csv", "ImageId,PredictionString", *rows[::-1]), None) == LABELS


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("l.txt", [1, 2, 3, 1], r"start at 1, so they are the devkit's.* as class_map"),
        ("l.txt", [0, 1], "has 2 lines for 4 validation images"),
        ("l.txt", [0, 1, 2, 3], "labels are out of range: 3"),
        ("l.txt", [*WNIDS, "n09999999"], "names classes that the data does not have: n09999999"),
        ("l.csv", ["Image,Label"], "has no columns ImageId and PredictionString"),
        ("l.csv", ["ImageId,PredictionString", f"{NAMES[0][:-5]},{WNIDS[0]}"], "does not list 3 validation images"),
    ],
)
def test_wrong_lists(tmp_path: Path, name: str, lines: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed_labels(write(tmp_path / name, *lines), NAMES, WNIDS, None)
