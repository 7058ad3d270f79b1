"""What stands for the data in the names of caches changes with every image, whichever one it is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import encoded, photo, write_arrays, write_folder, write_parquet

from datamodules import PianoRollDataModule
from datamodules.images.dataset import EvaluationImages
from datamodules.images.decoding import Crop
from datamodules.images.imagenet.arrays import ArraySource
from datamodules.images.imagenet.folder import FolderSource
from datamodules.images.imagenet.parquet import ParquetSource
from datamodules.images.source import ImagesInMemory
from datamodules.tokens.cache import Shard
from datamodules.tokens.data_module import Tokens
from litscale.metrics.reference import data_identity
from litscale.storage.fingerprints import of_files

CROP = Crop(16, upsample=False)


def later(path: Path) -> None:
    """Set a file's time one second on, as if it had been written again."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def folder(root: Path) -> Any:
    return FolderSource(root, True, None, None).open("train", CROP)


def arrays(root: Path) -> Any:
    return ArraySource(folder=root, labels=False, class_map=None, cache_dir=root / "cache").open("train", CROP)


def parquet(root: Path) -> Any:
    return ParquetSource(root, True).open("train", CROP)


def test_each_single_file_of_a_folder_counts(tmp_path: Path) -> None:
    paths = [path for path, _ in write_folder(tmp_path, "train", 4)]
    seen = {folder(tmp_path).fingerprint()}
    assert seen == {folder(tmp_path).fingerprint()}
    for path in paths:
        later(path)
        seen.add(folder(tmp_path).fingerprint())
    assert len(seen) == 1 + 12
    paths[0].write_bytes(paths[0].read_bytes() + b" ")
    os.utime(paths[0], ns=(0, 10**9 * 5))
    seen.add(folder(tmp_path).fingerprint())
    paths[0].rename(paths[0].with_name("other.JPEG"))
    seen.add(folder(tmp_path).fingerprint())
    assert len(seen) == 1 + 12 + 2


def test_data_may_move(tmp_path: Path) -> None:
    write_folder(tmp_path / "here", "train", 1)
    before = folder(tmp_path / "here").fingerprint()
    (tmp_path / "here").rename(tmp_path / "there")
    assert folder(tmp_path / "there").fingerprint() == before


@pytest.mark.parametrize("form", ["arrays", "parquet"])
def test_each_single_shard_counts(tmp_path: Path, form: str) -> None:
    if form == "arrays":
        write_arrays(tmp_path, "npz", [2, 2, 2, 2])
        opened, names = arrays, [f"train_data_batch_{k}.npz" for k in (1, 2, 3)]
    else:
        write_parquet(tmp_path, "train", [(encoded(photo(20, 20, seed=k)), k % 3) for k in range(6)], shards=3)
        opened, names = parquet, sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    assert len(names) == 3
    seen = {opened(tmp_path).fingerprint()}
    for name in names:
        later(tmp_path / name)
        seen.add(opened(tmp_path).fingerprint())
    assert len(seen) == 4


def test_another_crop_or_another_choice_is_other_data(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", 2)
    images = folder(tmp_path)
    small = FolderSource(tmp_path, True, None, None).open("train", Crop(8, upsample=False))
    chosen = [EvaluationImages(images, most, strict=False) for most in (None, 3)]
    found = {data_identity(data) for data in (*chosen, EvaluationImages(small, None, strict=False))}
    assert len(found) == 3


def test_every_image_in_memory_counts() -> None:
    def data(changed: int | None = None, labels: bool = True) -> EvaluationImages:
        canvases = np.zeros((200, 1, 2, 2), np.uint8)
        if changed is not None:
            canvases[changed, 0, 1, 0] = 1
        return EvaluationImages(ImagesInMemory(canvases, np.arange(200) % 3 if labels else None), None, strict=False)

    found = {data_identity(data(k)) for k in (None, *range(200))}
    assert len(found) == 201
    assert data_identity(data(labels=False)) not in found


def test_every_token_counts() -> None:
    def data(changed: int | None = None) -> Tokens:
        tokens = np.zeros((6, 5), np.int16)
        if changed is not None:
            tokens[changed] = (0, 0, 1, 0, 0)
        return Tokens([Shard(tokens[:2], None), Shard(tokens[2:], np.arange(4))])

    assert len({data_identity(data(k)) for k in (None, *range(6))}) == 7


def test_windows_change_with_their_pieces_and_the_cut(
    songs: Path, module: Callable[..., PianoRollDataModule], write_song: Callable[..., Path]
) -> None:
    def identity(**options: Any) -> str | None:
        dm = module(**options)
        dm.prepare_data()
        dm.setup("validate")
        return data_identity(dm.val_dataloader().dataset)

    seen = {identity()}
    assert seen == {identity()}
    seen |= {identity(window=8), identity(pitch_range=(41, 80)), identity(pitch_range=(40, 79)), identity(labels=True)}
    assert len(seen) == 5
    write_song(songs / "a" / "08.mid", 64, seed=99)
    assert identity() not in seen


def test_names_need_not_be_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.JPEG"
    with open(path, "wb"):  # noqa: PTH123
        pass
    assert len(of_files([path])) == 64
