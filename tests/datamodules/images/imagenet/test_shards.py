from pathlib import Path

import pytest
from data_runs import touch

from datamodules.images.imagenet.shards import expanded, form_of, shard_files


@pytest.mark.parametrize(
    ("there", "train", "val"),
    [
        (["train-1.tar", "train-0.tar", "val-0.tar", "test-0.tar"], ["train-0.tar", "train-1.tar"], ["val-0.tar"]),
        (
            ["in1k-train-0000.tar", "in1k-validation-00.tar", "in1k-validation-01.tar"],
            ["in1k-train-0000.tar"],
            ["in1k-validation-00.tar", "in1k-validation-01.tar"],
        ),
        (["train/000000.tar", "train/._0.tar", "valid/000000.tar"], ["train/000000.tar"], ["valid/000000.tar"]),
        (["data/train.tar", "train-0.tar"], ["data/train.tar"], []),
        (["train-0.tar.gz"], ["train-0.tar.gz"], []),
        (["train-0.tar.md5", "train-0.parquet", "training.tar"], [], []),
    ],
)
def test_shards_are_found_by_name(tmp_path: Path, there: list[str], train: list[str], val: list[str]) -> None:
    touch(tmp_path, *there)
    for split, wanted in (("train", train), ("val", val)):
        assert shard_files(tmp_path, split, "tar") == [tmp_path / name for name in wanted]


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a/08.tar", "a/09.tar", "a/10.tar", "b/09.tar", "c-1.tar", "c-2.tar")
    elsewhere = tmp_path / "folder"

    def files(pattern: str) -> list[str]:
        return [
            str(path.resolve().relative_to(tmp_path)) for path in shard_files(elsewhere, "val", "tar", {"val": pattern})
        ]

    elsewhere.mkdir()
    assert files("../a/{08..10}.tar") == ["a/08.tar", "a/09.tar", "a/10.tar"]
    assert files("../{b,a}/09.tar") == ["b/09.tar", "a/09.tar"]
    assert files("../c-*.tar") == ["c-1.tar", "c-2.tar"]
    assert files(f"{tmp_path}/c-{{2,1}}.tar") == ["c-2.tar", "c-1.tar"]
    with pytest.raises(FileNotFoundError, match=r"shards\.val: there is no .*a/06\.tar; .*a/07\.tar"):
        files("../a/{06..09}.tar")
    with pytest.raises(FileNotFoundError, match=r"shards\.val: there is no .*d-\*\.tar"):
        files("../d-*.tar")
    with pytest.raises(ValueError, match=r"shards\.val: .* names 1 files twice"):
        files("../a/{08,08}.tar")
    for address in ("https://host/a.tar", "pipe:curl -s a.tar"):
        with pytest.raises(ValueError, match="shards are files; copy them to a disk"):
            files(address)
    with pytest.raises(FileNotFoundError, match="shards: there is no pattern for train, only for val"):
        shard_files(tmp_path, "train", "tar", {"val": "c-*.tar"})


def test_what_is_named_as_a_shard_and_is_no_file(tmp_path: Path) -> None:
    touch(tmp_path, "val-0.tar")
    (tmp_path / "train-0.tar").mkdir()
    (tmp_path / "val-1.tar").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"train-0\.tar: not a file, but named like a shard of train; remove"):
        shard_files(tmp_path, "train", "tar")
    for patterns in (None, {"val": "*.tar"}):
        with pytest.raises(FileNotFoundError, match=r"val-1\.tar: not a file, but named like a shard of val"):
            shard_files(tmp_path, "val", "tar", patterns)


def test_braces() -> None:
    assert expanded("a{8..10}b") == ["a8b", "a9b", "a10b"]
    assert expanded("{0..1}{x,y}") == ["0x", "0y", "1x", "1y"]
    assert expanded("plain") == ["plain"]
    for pattern, message in (
        ("{3..1}", "stands for 0 files"),
        ("{0..99999999999}", "stands for 100000000000 files"),
        ("{0..9999}{0..9999}", "stands for 100000000 files"),
        ("a{0..3", "braces do not match"),
        ("{a,{0..3}}", "braces do not match"),
    ):
        with pytest.raises(ValueError, match=message):
            expanded(pattern)


def test_forms() -> None:
    assert form_of({"train": "a/*.tar", "val": "b.tar.gz"}) == "tar"
    assert form_of({"val": "{0..3}.parquet"}) == "parquet"
