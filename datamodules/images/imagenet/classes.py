"""Which class an image of ImageNet has: class k is the k-th of the sorted WordNet ids ("wnids").

ImageNet itself numbers its classes in another order, from 1: the devkit's ``ILSVRC2012_ID``, which the ground-truth
file and the down-sampled release use. A *class map* says which wnid a number stands for.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from datamodules.messages import abridged

CLASS_MAPS = ("map_clsloc.txt", "meta.mat")
VAL_LABELS = ("ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv")


def find_file(option: str, given: str | None, folder: Path, names: Sequence[str]) -> Path | None:
    """Return the file that an option gives, else the first of some names that the folder has, else None.

    Raises:
        FileNotFoundError: the file that the option gives is not there.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{option}: there is no file {given}")
        return path
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_class_map(path: Path) -> dict[int, str]:
    """Read a class map.

    Args:
        path: ``meta.mat`` of the devkit, or a text file like ``map_clsloc.txt`` with a line ``<wnid> <number> <name>``
            per class.

    Returns:
        Number -> wnid.

    Raises:
        ValueError: the file is something else, or names a number or a wnid twice.
    """
    pairs = _matlab_pairs(path) if path.suffix.lower() == ".mat" else _text_pairs(path)
    result = dict(pairs)
    if not pairs or len(result) != len(pairs) or len(set(result.values())) != len(pairs):
        raise ValueError(f"class_map: {path} has no classes, or some of them twice")
    return result


def _text_pairs(path: Path) -> list[tuple[int, str]]:
    pairs = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if len(fields) < 2 or not fields[1].isdecimal():
            raise ValueError(
                f"class_map: {path} has the line {line!r}, not '<wnid> <number> <name>'; give map_clsloc.txt or the "
                "devkit's meta.mat"
            )
        pairs.append((int(fields[1]), fields[0]))
    return pairs


def _matlab_pairs(path: Path) -> list[tuple[int, str]]:
    # In a process of its own, as scipy's parser crashes on some damaged files.
    with ProcessPoolExecutor(1) as pool:
        try:
            return pool.submit(_parse_matlab, path).result()
        # A damaged file can raise whatever scipy's parser raises, UnboundLocalError and NotImplementedError included.
        except Exception as error:
            raise ValueError(f"class_map: {path} is not the meta.mat of the ImageNet devkit ({error})") from error


def _parse_matlab(path: Path) -> list[tuple[int, str]]:
    from scipy.io import loadmat

    synsets = np.atleast_1d(loadmat(str(path), squeeze_me=True, variable_names=["synsets"])["synsets"])
    # Inner nodes of WordNet are listed too; they are no classes.
    return [(int(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in synsets if int(row["num_children"]) == 0]


def map_labels(numbers: np.ndarray, class_map: dict[int, str], wnids: Sequence[str], path: Path) -> np.ndarray:
    """Convert the release's own class numbers to classes.

    Args:
        numbers: int64 ``[n]``.
        class_map: number -> wnid.
        wnids: of the classes, in their order.
        path: where the numbers are from, for messages.

    Returns:
        int64 ``[n]``.

    Raises:
        ValueError: a number is in no class map, or its wnid is no class.
    """
    position = {wnid: k for k, wnid in enumerate(wnids)}
    distinct, inverse = np.unique(numbers, return_inverse=True)
    if unknown := [str(number) for number in distinct.tolist() if class_map.get(number) not in position]:
        raise ValueError(
            f"{path}: labels are out of range: {abridged(unknown)}; the class map numbers {len(class_map)} classes "
            f"from {min(class_map)} to {max(class_map)}, and the data has {len(wnids)}; give the map of this data as "
            "class_map"
        )
    return np.array([position[class_map[number]] for number in distinct.tolist()], np.int64)[inverse]


def listed_labels(
    path: Path, names: Sequence[str], wnids: Sequence[str], class_map: dict[int, str] | None
) -> np.ndarray:
    """Read the classes of images that are not in class folders.

    Args:
        path: ``.csv``: the columns ``ImageId`` (a name without its ending) and ``PredictionString`` (a wnid and boxes),
            as in ``LOC_val_solution.csv``. Else a text file with one line per image in the order of the sorted names:
            a wnid; or a number, which counts the sorted wnids if the lowest in the file is 0, and is the devkit's
            (counted from 1, as in ``ILSVRC2012_validation_ground_truth.txt``) otherwise.
        names: the images, sorted.
        wnids: of the classes, in their order.
        class_map: what the devkit's numbers stand for.

    Returns:
        int64 ``[len(names)]``.

    Raises:
        ValueError: the file does not fit the images or classes; the message names it.
    """
    if path.suffix.lower() == ".csv":
        entries = _csv_wnids(path, names)
    else:
        entries = path.read_text(encoding="utf-8", errors="replace").split("\n")
        entries = [line.strip() for line in entries if line.strip()]
        if len(entries) != len(names):
            raise ValueError(f"val_labels: {path} has {len(entries)} lines for {len(names)} validation images")
    if all(entry.isdecimal() for entry in entries):
        numbers = np.array(entries, np.int64)
        if numbers.min() == 0:
            class_map = dict(enumerate(wnids))
        elif class_map is None:
            raise ValueError(
                f"val_labels: the numbers in {path} start at {numbers.min()}, so they are the devkit's, in an order of "
                "its own: give map_clsloc.txt or the devkit's meta.mat as class_map, or number sorted wnids from 0"
            )
        return map_labels(numbers, class_map, wnids, path)
    position = {wnid: k for k, wnid in enumerate(wnids)}
    if unknown := sorted(set(entries) - set(position)):
        raise ValueError(f"val_labels: {path} names classes that the data does not have: {abridged(unknown)}")
    return np.array([position[entry] for entry in entries], np.int64)


def _csv_wnids(path: Path, names: Sequence[str]) -> list[str]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
            raise ValueError(f"val_labels: {path} has no columns ImageId and PredictionString")
        listed = {row["ImageId"]: (row["PredictionString"] or "").partition(" ")[0] for row in rows}
    if missing := [name for name in names if Path(name).stem not in listed]:
        raise ValueError(f"val_labels: {path} does not list {len(missing)} validation images: {abridged(missing)}")
    return [listed[Path(name).stem] for name in names]
