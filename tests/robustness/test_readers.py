"""Every reader on damaged files: it gives a value, or its documented error, which names the file once."""

import gzip
import io
import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from idx_files import idx
from image_files import encoded, photo, write_parquet
from mutations import mutations, outcome
from tar_files import write_shards

from callbacks.evaluation.sample_store import SampleStore
from datamodules.images.decoding import Crop, UnreadableImageError, decode
from datamodules.images.imagenet.arrays import ArraySource
from datamodules.images.imagenet.classes import read_class_map
from datamodules.images.imagenet.parquet import ParquetSource
from datamodules.images.imagenet.tar import TarSource
from datamodules.rolls.cache import RollCache, build_cache
from datamodules.tokens.cache import TokenMetadata, read_shard, shard_paths, write_shard
from litscale import music
from litscale.metrics.fid import Statistics
from litscale.metrics.reference import read_reference, write_reference
from litscale.storage.checkpoints import read_checkpoint, stamp
from litscale.storage.exported import by_name, write_exported
from litscale.storage.files import read_json
from litscale.storage.idx_images import read_idx
from litscale.storage.npz import map_npz, read_npy, read_npz
from litscale.storage.parquet import read_column, shard_header
from litscale.storage.pickles import load_plain

MIDI = Path(__file__).parents[1] / "data" / "pop909" / "331.mid"
BATCH = {
    "data": np.random.default_rng(0).integers(0, 256, (4, 48), dtype=np.uint8),
    "labels": [1, 2, 3, 1],
    "mean": np.arange(48.0),
}
PICTURES = idx(np.random.default_rng(0).integers(0, 9, (5, 28, 28)))


@dataclass(frozen=True)
class Case:
    """A file that is damaged, and what reads it.

    Attributes:
        write: puts a whole file, and what belongs to it, into a folder; gives its path.
        read: gives a value, or raises.
        error: the documented one.
        count: how many damaged copies the default run reads.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    error: type[ValueError] = ValueError
    count: int = 150


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def saved(save: Callable[..., None], *arguments: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **named)
    return buffer.getvalue()


def checkpoint(**options: Any) -> bytes:
    state = {"state_dict": {"a": torch.arange(40.0), "b": torch.ones(3, 2).bfloat16()}, "epoch": 3, "rate": 0.1}
    buffer = io.BytesIO()
    torch.save(stamp(state) if not options else state, buffer, **options)
    return buffer.getvalue()


def exported(folder: Path) -> Path:
    network = {
        "state_dict": {"a": torch.arange(40.0)},
        "tokenizer": {"state_dict": {"b": torch.ones(3, 2)}},
        "epoch": 3,
    }
    path = folder / "model.safetensors"
    write_exported(path, stamp(by_name(network)))
    return path


def arrays(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "map_clsloc.txt").write_text("a 1 a\nb 2 b\nc 3 c\n")
        return written(name, content)(folder)

    return write


def read_arrays(path: Path) -> int:
    source = ArraySource(folder=path.parent, labels=True, class_map=None, cache_dir=path.parent / "cache", strict=True)
    source.prepare("val")
    images = source.open("val", Crop(4, upsample=True))
    return sum(int(images.canvas(number).sum()) for number in range(len(images)))


def parquet(folder: Path) -> Path:
    write_parquet(folder, "val", [(encoded(photo(9, 8, seed)), seed % 3) for seed in range(6)], shards=1, rows=3)
    (path,) = (folder / "data").iterdir()
    return path


def read_pages(path: Path) -> list[int]:
    header = shard_header(path)
    return [read_column(path, "image", number).nbytes for number in range(len(header.rows))]


def read_parquet_images(path: Path) -> list[int]:
    source = ParquetSource(path.parents[1], True)
    source.class_names()
    images = source.open("val", Crop(4, upsample=True))
    return [int(images.canvas(number).sum()) for number in range(min(len(images), 20))]


def tar(folder: Path) -> Path:
    (path,) = write_shards(folder, "val", [(encoded(photo(9, 8, seed)), seed % 3) for seed in range(3)], shards=1)
    return path


def read_tar_images(path: Path) -> list[int]:
    source = TarSource(path.parent, True, path.parent / "cache")
    source.prepare("val")
    images = source.open("val", Crop(4, upsample=True))
    return [int(images.canvas(number).sum()) for number in range(len(images))]


METADATA = TokenMetadata("abc", [1, 2], 100, 3, {"train": 1})


def shard(which: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_shard(folder, "train", 0, np.arange(20).reshape(4, 5), np.array([0, 1, 2, 0]))
        return shard_paths(folder, "train", 0)[which]

    return write


def read_tokens(path: Path) -> int:
    found = read_shard(path.parent, METADATA, "train", 0, verify=True)
    assert found.tokens.shape == (4, 5)  # verified: nothing but the true tokens comes through
    return int(found.tokens.sum())


def index(folder: Path) -> Path:
    METADATA.write(folder)
    return folder / "index.json"


def reference(folder: Path) -> Path:
    statistics = Statistics(torch.zeros(3).double(), torch.eye(3).double(), 5)
    return write_reference(folder / "reference.npz", statistics, torch.ones(5, 3))


def sample_batch(folder: Path) -> Path:
    store = SampleStore(folder, "key")
    store.write(0, torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4))
    (path,) = store.folder.iterdir()
    return path


def class_map(folder: Path) -> Path:
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "U9"), ("num_children", "f8")]
    rows = np.array([(1, "n01484850", 0), (2, "n01440764", 0)], dtype=kinds)
    savemat(folder / "meta.mat", {"synsets": rows})
    return folder / "meta.mat"


def some_image(kind: str) -> Case:
    return Case(
        written("photo.jpg", encoded(photo(40, 30), kind)),
        lambda path: decode(path, str(path)).size,
        UnreadableImageError,
        60,
    )


CASES = {
    "midi": Case(written("song.mid", MIDI.read_bytes()), lambda path: music.read_midi(path, longest=2**14).steps),
    "checkpoint": Case(written("last.ckpt", checkpoint()), read_checkpoint),
    "old checkpoint": Case(
        written("old.pth", checkpoint(_use_new_zipfile_serialization=False)), lambda path: read_checkpoint(path)
    ),
    "exported model": Case(exported, read_checkpoint),
    "npz": Case(written("a.npz", saved(np.savez, **BATCH)), read_npz),
    "mapped npz": Case(written("a.npz", saved(np.savez, **BATCH)), lambda path: int(map_npz(path, "data").sum())),
    "compressed npz": Case(written("a.npz", saved(np.savez_compressed, **BATCH)), read_npz),
    "npy": Case(written("a.npy", saved(np.save, BATCH["data"])), read_npy),
    "mapped npy": Case(written("a.npy", saved(np.save, BATCH["data"])), lambda path: int(read_npy(path, True).sum())),
    "json": Case(written("a.json", json.dumps({"count": 3, "labels": [1, 2]}).encode()), read_json),
    "IDX": Case(written("a", PICTURES), lambda path: int(read_idx(path, (28, 28)).sum())),
    "compressed IDX": Case(
        written("a.gz", gzip.compress(PICTURES, mtime=0)), lambda path: int(read_idx(path, (28, 28)).sum())
    ),
    "arrays": Case(arrays("val_data.npz", saved(np.savez, **BATCH)), read_arrays, count=60),
    "compressed arrays": Case(arrays("val_data.npz", saved(np.savez_compressed, **BATCH)), read_arrays, count=60),
    "pickled arrays": Case(arrays("val_data", pickle.dumps(BATCH)), read_arrays, count=60),
    "class map": Case(class_map, read_class_map, count=10),
    "parquet": Case(parquet, read_pages),
    "parquet images": Case(parquet, read_parquet_images, count=60),
    "tar images": Case(tar, read_tar_images, count=60),
    "tokens": Case(shard(0), read_tokens),
    "record of tokens": Case(shard(1), read_tokens),
    "index of tokens": Case(index, lambda path: TokenMetadata.read(path.parent)),
    "reference": Case(reference, lambda path: read_reference(path, 3)),
    "samples": Case(sample_batch, lambda path: SampleStore(path.parents[1], "key").read(0, 2)),
    **{f"pickle of protocol {p}": Case(written("batch", pickle.dumps(BATCH, p)), load_plain) for p in range(6)},
    **{kind: some_image(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")},
}


def named(path: Path) -> str:
    """What an error must say: a shard of tokens is two files, either of which may be the one at fault."""
    return str(path.with_suffix(""))


def check(case: Case, folder: Path, count: int, seed: int) -> None:
    """Read the whole file, and so many damaged copies."""
    path = case.write(folder)
    case.read(path)
    refused = 0
    for data in mutations(path.read_bytes(), count, seed):
        path.unlink()  # a new file, as old maps may still be there
        path.write_bytes(data)
        refused += outcome(lambda: case.read(path), named(path), case.error) is None
    assert refused > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_value_or_the_documented_error(name: str, tmp_path: Path) -> None:
    check(CASES[name], tmp_path, CASES[name].count, seed=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_value_or_the_documented_error_many_times(name: str, tmp_path: Path) -> None:
    check(CASES[name], tmp_path, 20 * CASES[name].count, seed=1)


@pytest.mark.parametrize("name", ["rolls.u8", "notes.npy", "index.json"])
def test_a_damaged_roll_cache_is_none_or_can_be_read(name: str, tmp_path: Path) -> None:
    """Damaged caches are rebuilt, so there is no error at all."""
    pieces = {f"piece {number}": np.full((128, 5 + number), number, np.uint8) for number in range(3)}
    build_cache(tmp_path / "rolls", list(pieces), lambda name: music.Roll(pieces[name]), "pieces")
    path, none = tmp_path / "rolls" / name, 0
    for data in mutations(path.read_bytes(), 100):
        path.unlink()
        path.write_bytes(data)
        cache = RollCache.open(tmp_path / "rolls")
        none += cache is None
        if cache is not None:
            for number, steps in enumerate(cache.steps.tolist()):
                assert cache.window(number, 0, steps).shape == (128, steps)
    assert none > 0


def test_random_bytes(tmp_path: Path) -> None:
    """Noise, text and nothing, to every reader of one file."""
    chance = random.Random(0)
    contents = [chance.randbytes(length) for length in (0, 1, 7, 8, 100, 5000)] + [b"text\n" * 20, b"\x00" * 300]
    for name, case in CASES.items():
        folder = tmp_path / name
        folder.mkdir()
        path = case.write(folder)
        for content in contents:
            path.unlink()
            path.write_bytes(content)
            assert outcome(lambda case=case, path=path: case.read(path), named(path), case.error) is None
