import gzip
import io
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, photo, published, write_folder
from PIL import Image
from tar_files import write_shards, write_tar

from datamodules.images.decoding import Crop, UnreadableImageError
from datamodules.images.imagenet import tar
from datamodules.images.imagenet.folder import FolderSource
from datamodules.images.imagenet.tar import TarImages, TarSource, index_shard

CROP = Crop(16, upsample=False)
PICTURE = encoded(photo(20, 18))


def opened(folder: Path, labels: bool = True, split: str = "train", **options: object) -> TarImages:
    source = TarSource(folder, labels, folder / "cache", **options)
    source.prepare(split)
    return source.open(split, CROP)


def reference(data: bytes) -> np.ndarray:
    return published(Image.open(io.BytesIO(data)).convert("RGB"), 16)


@pytest.fixture
def rows() -> list[tuple[bytes, int]]:
    random = np.random.default_rng(0)
    sides = random.integers(16, 50, (11, 2)).tolist()
    return [(encoded(photo(*pair, seed=k), ("PNG", "JPEG")[k % 2]), (5 * k + 2) % 7) for k, pair in enumerate(sides)]


def test_images_are_those_of_pillow_and_no_file_stays_open(tmp_path: Path, rows: list[tuple[bytes, int]]) -> None:
    write_shards(tmp_path, "train", rows, shards=3)
    images = opened(tmp_path)
    assert len(images) == 11
    assert images.labels.tolist() == [label for _, label in rows]
    before = sorted(Path("/dev/fd").iterdir())
    for index in np.random.default_rng(1).permutation(11).tolist():
        assert np.array_equal(images.canvas(index), reference(rows[index][0]))
    assert sorted(Path("/dev/fd").iterdir()) == before
    copy = pickle.loads(pickle.dumps(images))
    assert np.array_equal(copy.canvas(7), images.canvas(7))


def test_the_page_packs_a_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[4] / "docs" / "data.md").read_text()
    (program,) = (each for each in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "tarfile" in each)
    write_folder(tmp_path / "imagenet", "train", 5)
    monkeypatch.chdir(tmp_path)
    exec(program.replace(", 1000\n", ", 4\n"), {})
    assert len(list(Path("shards/train").iterdir())) == 4
    images = opened(Path("shards"))
    expected = FolderSource(Path("imagenet"), True, None, None).open("train", CROP)
    assert images.labels.tolist() == expected.labels.tolist()
    for index in range(15):
        assert np.array_equal(images.canvas(index), expected.canvas(index))


@pytest.mark.parametrize("options", [{}, {"format": tarfile.USTAR_FORMAT}, {"format": tarfile.GNU_FORMAT}])
def test_what_webdataset_calls_a_sample(tmp_path: Path, options: dict[str, int]) -> None:
    others = [encoded(photo(20, 20, seed)) for seed in range(4)]
    folder = "a.b/" + 90 * "c"  # with the name, more than a header's first field holds
    members = [
        ("list.txt", b"text"),
        ("README", b"text"),
        ("one.cls", b"4\n"),  # in another order, and not beside its image
        ("._one.jpg", b"of another system"),
        (f"{folder}/two.JPEG", others[0]),
        ("one.PNG", others[1]),
        (f"{folder}/two.seg.png", b"another field of the sample"),
        (f"{folder}/two.CLS", b"0"),
        ("three.webp", others[2]),
        ("three.json", b'{"width": 20, "label": 6}'),
        ("four.jpg", others[3]),
        ("four.json", b'{"cls": 5}'),
    ]
    write_tar(tmp_path / "train-0.tar", members, **options)
    with tarfile.open(tmp_path / "train-0.tar", "a", **options) as archive:
        made = tarfile.TarInfo("five.jpg")
        made.type = tarfile.DIRTYPE
        archive.addfile(made)
    images = opened(tmp_path)
    assert images.labels.tolist() == [0, 4, 6, 5]
    for index in range(4):
        assert np.array_equal(images.canvas(index), reference(others[index]))
    assert opened(tmp_path, labels=False).labels is None


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = 12 * "directory/"
    name = f"{folder}three"
    members = [("two.jpg", b"text"), ("two.cls", b"1"), (f"{name}.jpg", b"text"), (f"{name}.cls", b"2")]
    write_tar(tmp_path / "train-0.tar", members, format=tarfile.USTAR_FORMAT)
    images = opened(tmp_path)
    for index, whole in enumerate(("two.jpg", f"{name}.jpg")):
        with pytest.raises(UnreadableImageError, match=f"^{whole} in .*train-0.tar: cannot be read as an image"):
            images.canvas(index)


def test_the_index_is_made_once_for_each_state_of_the_shards(
    tmp_path: Path, rows: list[tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, "train", rows, shards=2)
    source = TarSource(tmp_path, True, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"no index of the train shards at .*: call prepare_data\(\) first"):
        source.open("train", CROP)
    opened(tmp_path)
    (index,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(tar, "index_shard", None)
        source.prepare("train")
    # damaged: made again
    content = index.read_bytes()
    index.write_bytes(content[:-40])
    assert len(opened(tmp_path)) == 11
    assert index.read_bytes() == content
    # another shard, and the same number of bytes
    write_shards(tmp_path, "train", [(data, 6 - label) for data, label in rows], shards=2)
    assert opened(tmp_path).labels.tolist() == [6 - label for _, label in rows]
    # a fingerprint tells what the cached features of an evaluation belong to
    before = opened(tmp_path).fingerprint()
    os.utime(tmp_path / "train-000001.tar", (0, 0))
    assert opened(tmp_path).fingerprint() != before


def test_shards_that_change_while_they_are_read(tmp_path: Path, rows: list[tuple[bytes, int]]) -> None:
    _, path = write_shards(tmp_path, "train", rows, shards=2)
    images = opened(tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableImageError, match=r"image 10: .*train-000001\.tar: cannot be read as a tar.*ends be"):
        images.canvas(10)
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"image 6: .*train-000001\.tar") as caught:
        images.canvas(6)
    assert caught.value.place == str(path)
    assert images.canvas(5).shape == (3, 16, 16)


def test_a_shard_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    members = [("a.jpg", b"x" * 700), ("a.cls", b"1"), ("b" * 120 + ".jpg", b"y" * 512), ("b" * 120 + ".cls", b"2")]
    path = write_tar(tmp_path / "a.tar", members)
    whole = path.read_bytes()
    assert index_shard(path, True)[:, 1:].tolist() == [[700, 1], [512, 2]]
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    for cut in range(0, end + 1, 128):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError, match=r"a\.tar: cannot be read as a tar file .*; get the shard again, or create"
        ):
            index_shard(path, True)
    # a header in the middle, for which Python takes the end
    path.write_bytes(whole[:1536] + b"\xff" * 512 + whole[2048:])
    with pytest.raises(ValueError, match="what follows byte 1536 is not a file"):
        index_shard(path, True)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", PICTURE)], r"the image of 'a' has no class: add a\.cls .*, or set labels to false"),
        ([("a.jpg", PICTURE), ("a.cls", b"cat")], r"a\.cls must hold the number of a class, not 'cat'; or set labels"),
        ([("a.jpg", PICTURE), ("a.cls", b"")], r"a\.cls must hold the number of a class, not ''"),
        ([("a.jpg", PICTURE), ("a.cls", b"1.5")], r"a\.cls must hold the number of a class, not '1\.5'"),
        ([("a.jpg", PICTURE), ("a.cls", "\u0663".encode())], r"a\.cls must hold the number of a class"),
        ([("a.jpg", PICTURE), ("a.cls", b"9" * 30)], r"a\.cls must hold the number of a class, not '999"),
        ([("a.jpg", PICTURE), ("a.json", b"{}")], r"a\.json must hold the number of a class, not 'None'"),
        ([("a.jpg", PICTURE), ("a.json", b"[1]")], r"a\.json must hold the number of a class"),
        ([("a.jpg", PICTURE), ("a.json", b'{"label": true}')], r"a\.json must hold the number of a class, not 'True'"),
        ([("a.jpg", PICTURE), ("a.json", b"{")], r"a\.json must hold the number of a class"),
        ([("a.jpg", PICTURE), ("a.cls", b"1"), ("b.cls", b"1")], r"b\.cls has no image beside it"),
        ([("a.jpg", PICTURE), ("a.cls", b"1"), ("a.png", PICTURE)], "two images have the key 'a'"),
        ([("a.jpg", PICTURE), ("b.jpg", PICTURE), ("a.jpg", PICTURE)], "two images have the key 'a'"),
        ([("a.b.jpg", PICTURE), ("a.b.cls", b"1")], r"a\.b\.jpg belongs to no image, because a key ends at"),
        ([("a.txt", b"1")], r"it holds no images \(\.jpeg, .*; a sample is KEY\.jpg and KEY\.cls"),
        ([], "it holds no images"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "train-1.tar", [("a.jpg", PICTURE), ("a.cls", b"1")])
    with pytest.raises(ValueError, match=message) as caught:
        opened(tmp_path)
    assert str(tmp_path / "train-0.tar") in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["train-0.tar.gz", "train-0.tgz", "train/0.tar"])
def test_compressed_shards_are_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / name, [("a.jpg", PICTURE), ("a.cls", b"1")])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path.name}: .*compressed with gzip.*unpack it to a plain \.tar"):
        opened(tmp_path)


def test_links_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train-0.tar", [("a.jpg", PICTURE), ("a.cls", b"1")])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"train-0\.tar: .*'b\.jpg' is not a regular file"):
        opened(tmp_path)


def test_names_of_classes(tmp_path: Path) -> None:
    source = TarSource(tmp_path, True, tmp_path)
    assert source.class_names() == []
    (tmp_path / "classnames.txt").write_text("tench\ngreat white shark\n\n")
    assert source.class_names() == ["tench", "great white shark"]


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder: there is neither val-\*\.tar nor val/\*\.tar in .*as shards"):
        opened(tmp_path, split="val")
