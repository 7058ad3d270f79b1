import argparse
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import outcome

from litscale.storage.checkpoints import STAMP, checksum, read_checkpoint, stamp


def example() -> dict[str, Any]:
    """Every kind of value that Lightning's checkpoints hold."""
    torch.manual_seed(0)
    return {
        "state_dict": {
            "a": torch.randn(3, 5),
            "half": torch.randn(7).bfloat16(),
            "turned": torch.arange(6).view(2, 3).T,
            "scalar": torch.tensor(2.5),
            "none": torch.empty(0, 4),
        },
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0), "betas": (0.9, 0.99)}}}],
        "epoch": 3,
        "rate": 1e-4,
        "nothing": None,
        "name": "ä",
        "flags": [True, False],
    }


def test_a_stamped_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    saved = example()
    stamped = stamp(saved)
    assert STAMP not in saved
    assert stamp(stamped)[STAMP] == stamped[STAMP]
    torch.save(stamped, tmp_path / "last.ckpt")
    found = read_checkpoint(tmp_path / "last.ckpt")
    assert found.keys() == stamped.keys()
    assert found["epoch"] == 3
    assert torch.equal(found["state_dict"]["turned"], torch.tensor([[0, 3], [1, 4], [2, 5]]))
    assert checksum({name: value for name, value in found.items() if name != STAMP}) == stamped[STAMP]


def test_the_checksum_sees_every_change() -> None:
    def changed(**values: Any) -> str:
        return checksum(example() | values)

    weights = example()["state_dict"]
    flipped = weights["a"].clone()
    flipped.view(torch.int32)[1, 2] ^= 1
    seen = [
        checksum(example()),
        changed(state_dict=weights | {"a": flipped}),
        changed(state_dict=weights | {"a": weights["a"].double()}),
        changed(state_dict=weights | {"a": weights["a"].view(5, 3)}),
        changed(state_dict=weights | {"none": torch.empty(0, 5)}),
        changed(state_dict={("b" if name == "a" else name): value for name, value in weights.items()}),
        changed(epoch=4),
        changed(epoch=3.0),
        changed(rate=1.1e-4),
        changed(name="a"),
        changed(flags=[False, True]),
        changed(flags=[True, [False]]),
        changed(nothing=0),
    ]
    assert len(set(seen)) == len(seen)
    assert changed(state_dict=weights | {"a": weights["a"].T.contiguous().T}) == seen[0]  # layout is no content


def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    """Of 200 flips anywhere in the file, none changes what is loaded."""
    path = tmp_path / "last.ckpt"
    torch.save(stamp(example()), path)
    whole, original = path.read_bytes(), checksum(example())
    randomly, refused = random.Random(0), 0
    for _ in range(200):
        position = randomly.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << randomly.randrange(8)
        path.write_bytes(damaged)
        found = outcome(lambda: read_checkpoint(path, "--ckpt_path"), f"--ckpt_path {path} ")
        if found is None:
            refused += 1
        else:
            # The flip may have hit the checksum's own name.
            assert checksum({name: found[name] for name in example()}) == original
    assert refused > 20


def test_a_truncated_file_is_named_in_words(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(stamp(example()), path)
    whole, messages = path.read_bytes(), set()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^checkpoint .*last\.ckpt is damaged or truncated") as caught:
            read_checkpoint(path)
        messages.add(str(caught.value))
    assert len(messages) >= 2
    assert not [text for text in messages if "Errno" in text or "()" in text or "internal" in text]


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)}, tmp_path / "published.pth")
    assert read_checkpoint(tmp_path / "published.pth")["args"].lr == 0.1
    torch.save([1, 2], tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth") == [1, 2]


def test_a_wrong_checksum_names_the_file(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), STAMP: "0" * 64}, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=r"target .*best\.ckpt is damaged or truncated \(its checksum differs; "):
        read_checkpoint(tmp_path / "best.ckpt", "target")


@pytest.mark.parametrize(
    "content",
    [b"", b"some text\n", "Größe: 12\n".encode("utf-16"), b"PK\x05\x06" + bytes(18), b"\x80\x02}q\x00.", bytes(600)],
    ids=["empty", "text", "utf-16", "empty archive", "pickle", "zeros"],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"--ckpt_path .*x\.ckpt is damaged or truncated"):
        read_checkpoint(tmp_path / "x.ckpt", "--ckpt_path")


def test_the_reason_is_no_bare_key(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"hello world, this is text")
    with pytest.raises(ValueError, match=r"x\.ckpt is damaged or truncated: use another copy$"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_an_absurd_length_field(tmp_path: Path) -> None:
    """Files of the old format give the number of elements in eight bytes before them."""
    path = tmp_path / "old.pth"
    torch.save({"w": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    whole, length = path.read_bytes(), struct.pack("<q", 1000)
    assert whole.count(length) == 1
    path.write_bytes(whole.replace(length, struct.pack("<q", 2**40)))
    with pytest.raises(ValueError, match=r"old\.pth is damaged or truncated"):
        read_checkpoint(path)


def test_compressed_entries_are_refused_and_not_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("bomb/data/0", bytes(2**20))
    with pytest.raises(ValueError, match=r"bomb\.ckpt is damaged or truncated \(its entries are compressed\)"):
        read_checkpoint(tmp_path / "bomb.ckpt")


def test_a_tensor_larger_than_the_file_is_not_unfolded(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(2**40), STAMP: ""}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt is damaged or truncated \(\.'w' is larger than the file\)"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--ckpt_path .*none\.ckpt: no such file"):
        read_checkpoint(tmp_path / "none.ckpt", "--ckpt_path")
