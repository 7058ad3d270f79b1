import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from litscale.storage.npz import is_stored, map_npz, npz_names, read_npy, read_npz

ARRAYS = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": np.array([3, 1, 2]), "name": np.array("ä")}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == npz_names(tmp_path / "a.npz") == ["data", "labels", "name"]
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["data"][0, 0] = 7  # is no map of the file
    assert list(read_npz(tmp_path / "a.npz", ["labels", "other"])) == ["labels"]
    assert is_stored(tmp_path / "a.npz") == (save is np.savez)


def test_maps_are_read_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", turned=ARRAYS["data"].T, **ARRAYS)
    np.save(tmp_path / "a.npy", ARRAYS["data"])
    for found in (map_npz(tmp_path / "a.npz", "data"), read_npy(tmp_path / "a.npy", mapped=True)):
        assert np.array_equal(found, ARRAYS["data"])
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 7
    assert np.array_equal(map_npz(tmp_path / "a.npz", "turned"), ARRAYS["data"].T)
    assert np.array_equal(read_npy(tmp_path / "a.npy"), ARRAYS["data"])


def test_an_empty_array_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.empty((0, 5), np.int16))
    assert read_npy(tmp_path / "a.npy", mapped=True).shape == read_npy(tmp_path / "a.npy").shape == (0, 5)


def test_a_missing_array_or_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    with pytest.raises(ValueError, match=r"a\.npz: .* \(it holds no pixels\)"):
        map_npz(tmp_path / "a.npz", "pixels")
    for read in (read_npz, read_npy, npz_names):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


def test_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=np.array([{}], dtype=object))
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: .*it holds object, not numbers or text"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npy: .*it holds object, not numbers or text"):
        read_npy(tmp_path / "a.npy", mapped=True)


@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04" + bytes(40), npy(ARRAYS["data"])[:-1]])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    for read in (read_npz, read_npy, npz_names, lambda path: map_npz(path, "data")):
        with pytest.raises(ValueError, match=r"a\.npz: damaged, truncated or no file of plain arrays"):
            read(path)
    assert not is_stored(path)


@pytest.mark.parametrize("shape", ["(1099511627776, 4)", "(-3, -4)", "(4, 4)"])
def test_a_header_that_declares_another_size(tmp_path: Path, shape: str) -> None:
    whole = npy(ARRAYS["data"])
    damaged = whole.replace(f"{'(3, 4), }':<{len(shape) + 3}}".encode(), f"{shape}, }}".encode())
    assert len(damaged) == len(whole)
    assert damaged != whole
    (tmp_path / "a.npy").write_bytes(damaged)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("data.npy", damaged)
    for read in (
        lambda: read_npy(tmp_path / "a.npy"),
        lambda: read_npy(tmp_path / "a.npy", mapped=True),
        lambda: read_npz(tmp_path / "a.npz"),
        lambda: map_npz(tmp_path / "a.npz", "data"),
    ):
        with pytest.raises(ValueError, match=r"a\.np[yz]: .*it has 140 bytes, not the"):
            read()


def test_an_entry_that_expands_too_far_is_not_inflated(tmp_path: Path) -> None:
    """65 MiB of zeros in 66 KB are refused by what the archive declares, and 63 MiB are read."""
    for size, name in ((65 * 2**20, "large"), (63 * 2**20, "small")):
        np.savez_compressed(tmp_path / f"{name}.npz", data=np.zeros(size, np.uint8))
    with pytest.raises(ValueError, match=r"large\.npz: .*it declares 68157568 bytes in a file of \d+"):
        read_npz(tmp_path / "large.npz")
    assert not read_npz(tmp_path / "small.npz")["data"].any()
