import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encoded, photo, published, write_parquet
from PIL import Image

from datamodules.images.dataset import EvaluationImages, TrainingImages
from datamodules.images.decoding import Crop, UnreadableImageError
from datamodules.images.imagenet import parquet
from datamodules.images.imagenet.parquet import ParquetImages, ParquetSource
from litscale.storage.parquet import read_column

CROP = Crop(16, upsample=False)


@pytest.fixture
def rows() -> list[tuple[bytes, int]]:
    random = np.random.default_rng(0)
    sides = random.integers(16, 50, (40, 2)).tolist()
    return [(encoded(photo(*pair, seed=k), ("PNG", "JPEG")[k % 2]), k % 3) for k, pair in enumerate(sides)]


@pytest.fixture
def images(tmp_path: Path, rows: list[tuple[bytes, int]]) -> ParquetImages:
    write_parquet(tmp_path, "train", rows, shards=3)
    return ParquetSource(tmp_path, True).open("train", CROP)


def reference(data: bytes) -> np.ndarray:
    return published(Image.open(io.BytesIO(data)).convert("RGB"), 16)


def test_images_are_those_of_pillow(images: ParquetImages, rows: list[tuple[bytes, int]]) -> None:
    assert len(images) == 40
    assert images.labels.tolist() == [label for _, label in rows]
    for index in np.random.default_rng(1).permutation(40).tolist():
        assert np.array_equal(images.canvas(index), reference(rows[index][0]))


@pytest.mark.parametrize("name", ["validation", "val"])
def test_validation_shards_and_plain_columns(tmp_path: Path, rows: list[tuple[bytes, int]], name: str) -> None:
    table = pa.table({"image": [data for data, _ in rows[:5]], "label": [label for _, label in rows[:5]]})
    pq.write_table(table, tmp_path / f"{name}-00000-of-00001.parquet")
    images = ParquetSource(tmp_path, True).open("val", CROP)
    assert np.array_equal(images.canvas(4), reference(rows[4][0]))
    assert images.labels.tolist() == [0, 1, 2, 0, 1]


def test_class_names_are_those_of_the_hub(tmp_path: Path, rows: list[tuple[bytes, int]]) -> None:
    write_parquet(tmp_path, "train", rows, shards=1)
    assert ParquetSource(tmp_path, True).class_names() == []
    (path,) = (tmp_path / "data").iterdir()
    features = b'{"info": {"features": {"label": {"names": ["tench", "goldfish"], "_type": "ClassLabel"}}}}'
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": features}), path)
    assert ParquetSource(tmp_path, True).class_names() == ["tench", "goldfish"]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_orders_are_permutations_in_blocks_of_row_groups(images: ParquetImages, ranks: int) -> None:
    images.block = 8  # two row groups
    orders = [images.order(np.random.default_rng(seed), ranks) for seed in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    for order in orders:
        assert len(order) == 40 // ranks * ranks
        assert len(set(order.tolist())) == len(order)
        for rank in range(ranks):
            share = order[rank::ranks]
            for first in range(0, len(share), 8):
                # Its rows, and those of a group that straddles a border.
                groups = np.searchsorted(images.starts, share[first : first + 8], side="right")
                assert len(set(groups.tolist())) <= 4
    assert orders[0].tolist() != sorted(orders[0].tolist())


def test_row_groups_are_read_once_per_block(images: ParquetImages, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(path: Path, name: str, group: int) -> pa.ChunkedArray:
        read.append(group)
        return read_column(path, name, group)

    monkeypatch.setattr(parquet, "read_column", counting)
    images.block = 8
    for index in images.order(np.random.default_rng(0), 1).tolist():
        images.canvas(index)
    assert len(read) == len(images.groups)

    monkeypatch.setattr(parquet, "KEPT_BYTES", 1)  # one row group at a time
    images._kept.clear()
    for index in (0, 39, 0):
        images.canvas(index)
    assert len(read) == len(images.groups) + 3


def test_workers_are_sent_no_images(images: ParquetImages) -> None:
    images.canvas(3)
    assert images._kept
    copy = pickle.loads(pickle.dumps(images))
    assert not copy._kept
    assert np.array_equal(copy.canvas(3), images.canvas(3))


def test_rows_without_an_image(tmp_path: Path, rows: list[tuple[bytes, int]]) -> None:
    write_parquet(tmp_path, "train", [*rows[:3], (None, 1), (b"text", 1)], shards=1)
    images = ParquetSource(tmp_path, True).open("train", CROP)
    with pytest.raises(UnreadableImageError, match=r"row 3 of row group 0 of .*train-00000.*: has no image bytes"):
        images.canvas(3)
    with pytest.raises(UnreadableImageError, match=r"row 0 of row group 1 of .*: cannot be read as an image"):
        images.canvas(4)


def damage_page(path: Path, group: int) -> None:
    """Overwrite the header of the first page of images of a row group."""
    described = pq.ParquetFile(path).metadata.row_group(group).column(0)
    assert described.path_in_schema == "image.bytes"
    data = bytearray(path.read_bytes())
    start = described.dictionary_page_offset or described.data_page_offset
    data[start : start + 16] = b"\xff" * 16
    path.write_bytes(data)


def test_a_damaged_page_names_its_shard_and_is_replaced_and_counted(
    tmp_path: Path, rows: list[tuple[bytes, int]]
) -> None:
    write_parquet(tmp_path, "train", rows[:12], shards=1)
    (path,) = (tmp_path / "data").iterdir()
    damage_page(path, 1)  # rows 4 to 7
    images = ParquetSource(tmp_path, True).open("train", CROP)
    for index in (3, 8):
        assert np.array_equal(images.canvas(index), reference(rows[index][0]))
    for row in (0, 3):
        message = rf"^row {row} of row group 1: {path}: cannot be read as a parquet shard"
        with pytest.raises(UnreadableImageError, match=message) as caught:
            images.canvas(4 + row)
        assert caught.value.place == f"row group 1 of {path}"
    data = EvaluationImages(images, None, False)
    assert [number for number in range(12) if data[number][0] is None] == [4, 5, 6, 7]
    training = TrainingImages(images, 0, None, False, 1)
    found = [training[0, position] for position in range(12)]
    assert all(item is not None for item, _ in found)
    assert len({error for _, errors in found for error in errors}) == 4


def test_a_shard_that_declares_too_much(tmp_path: Path) -> None:
    """A million labels of one value fit into a few hundred bytes; as images, they cannot."""
    table = pa.table({"image": pa.nulls(2**20, pa.binary()), "label": np.zeros(2**20, np.int64)})
    pq.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match=r"train-0\.parquet: .*declares 1048576 rows and \d+ bytes in a file of "):
        ParquetSource(tmp_path, True).open("train", CROP)


@pytest.mark.parametrize("labels", [["a"], [None]])
def test_labels_that_are_no_numbers(tmp_path: Path, labels: list[object]) -> None:
    pq.write_table(pa.table({"image": [b"x"], "label": labels}), tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match=r"train-0\.parquet: its labels are not whole numbers"):
        ParquetSource(tmp_path, True).open("train", CROP)


def test_damaged_names_of_classes(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x"], "label": [0]}).replace_schema_metadata({b"huggingface": b'{"info": [1]}'})
    pq.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match=r"train-0\.parquet: its metadata do not describe images"):
        ParquetSource(tmp_path, True).class_names()


def test_wrong_shards(tmp_path: Path) -> None:
    source = ParquetSource(tmp_path, True)
    with pytest.raises(FileNotFoundError, match=r"folder: there is no train-\*\.parquet in"):
        source.open("train", CROP)
    path = tmp_path / "train-0.parquet"
    pq.write_table(pa.table({"image": [b""], "class": [1]}), path)
    with pytest.raises(ValueError, match=r"train-0\.parquet: .*it has no column label, but image; class"):
        source.open("train", CROP)
    assert ParquetSource(tmp_path, False).open("train", CROP).labels is None
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"train-0\.parquet: cannot be read as a parquet shard"):
        source.open("train", CROP)
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), path)
    with pytest.raises(FileNotFoundError, match=r"the train shards in .* have no rows"):
        source.open("train", CROP)
