import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litscale.storage.pickles import load_plain


class Command:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def write(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    data = np.arange(24, dtype=np.uint8).reshape(2, 12)
    value = {"data": data, "labels": [3, 1], "mean": data.mean(0), "one": np.int64(7), "bytes": b"\xff\x00", "t": (1,)}
    found = load_plain(write(tmp_path / "batch", value, protocol))
    assert found.keys() == value.keys()
    assert np.array_equal(found["data"], data)
    assert found["data"].dtype == np.uint8
    assert np.array_equal(found["mean"], value["mean"])
    assert (found["labels"], found["one"], found["bytes"], found["t"]) == ([3, 1], 7, b"\xff\x00", (1,))


def test_names_of_numpy_1(tmp_path: Path) -> None:
    data = pickle.dumps(np.arange(5, dtype=np.uint8), protocol=2)
    assert b"numpy._core.multiarray" in data
    (tmp_path / "batch").write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert load_plain(tmp_path / "batch").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    for value in (Command(str(made)), {"data": np.array([Command(str(made))], dtype=object), "labels": [1]}):
        path = write(tmp_path / "batch", value, protocol)
        with pytest.raises(
            ValueError, match=r"batch: the pickle asks for posix\.mkdir, and loading that could run code"
        ):
            load_plain(path)
        assert not made.exists()


@pytest.mark.parametrize("value", [partial(print, 1), Path("x"), eval, np.load, np.random.default_rng(0)])
def test_anything_else_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="could run code, so it is refused"):
        load_plain(write(tmp_path / "batch", value))


def test_no_pickle(tmp_path: Path) -> None:
    whole = pickle.dumps({"data": np.zeros(100)})
    for content in (b"", b"some text", whole[:60]):
        (tmp_path / "batch").write_bytes(content)
        with pytest.raises(ValueError, match="batch: damaged, truncated or no pickle"):
            load_plain(tmp_path / "batch")
