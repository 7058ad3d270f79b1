"""Files of reference statistics."""

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from litscale.metrics import FeatureStatistics
from litscale.metrics.reference import data_identity, read_reference, write_reference


class Stream(IterableDataset):
    def __len__(self):
        return 3

    def __iter__(self):
        return iter([])


def test_round_trip(tmp_path):
    features = torch.randn(6, 3)
    metric = FeatureStatistics(3)
    metric.update(features)
    own = metric.compute()
    path = write_reference(tmp_path / "new" / "reference.npz", own, features)
    found = read_reference(path, 3)
    assert torch.equal(found.features, features)
    assert torch.equal(found.statistics.mu, own.mu)
    assert torch.equal(found.statistics.sigma, own.sigma)
    assert found.statistics.count == 6
    assert found.images is None


def test_the_layout_of_adm(tmp_path):
    images = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    path = tmp_path / "adm.npz"
    np.savez(path, arr_0=images, mu=np.ones(3, np.float32), sigma=np.eye(3), mu_s=np.ones(7), sigma_s=np.eye(7))
    found = read_reference(path, 3)
    assert found.statistics.mu.tolist() == [1, 1, 1]
    assert found.statistics.mu.dtype == torch.float64
    assert found.statistics.count is None
    assert found.images.shape == images.shape
    np.savez(path, images)
    assert read_reference(path, 3).statistics is None


def test_bad_files(tmp_path):
    path = tmp_path / "bad.npz"
    with pytest.raises(FileNotFoundError, match=r"reference: no file .*bad.npz"):
        read_reference(path, 3)
    for content in (b"nothing", b"PK\x03\x04 cut off", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"reference .*bad.npz: damaged, truncated or no file of plain arrays"):
            read_reference(path, 3)
    np.savez(path, mu=np.array([print, 1], dtype=object), sigma=np.eye(3))
    with pytest.raises(ValueError, match=r"reference .*bad.npz: damaged, truncated or no file of plain arrays"):
        read_reference(path, 3)
    np.savez(path, mu=np.zeros(3), other=np.zeros(3))
    with pytest.raises(ValueError, match="neither mu and sigma nor images as arr_0, but mu, other"):
        read_reference(path, 3)
    np.savez(path, mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(ValueError, match=r"mu of shape \[64\] and sigma of \[64, 64\], the extractor gives 3 features"):
        read_reference(path, 3)
    np.savez(path, np.zeros((2, 3, 4, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"arr_0 is uint8 \[2, 3, 4, 4\], not uint8 \[N, H, W, 3\]"):
        read_reference(path, 3)


def test_entries_of_another_kind(tmp_path):
    path = tmp_path / "bad.npz"
    good = {"mu": np.zeros(3), "sigma": np.eye(3), "count": np.int64(5), "features": np.zeros((5, 3), np.float32)}
    for name, value, message in (
        ("mu", np.array(["a", "b", "c"]), "mu is of <U1, not of real numbers"),
        ("sigma", np.eye(3, dtype=complex), "sigma is of complex128, not of real numbers"),
        ("count", np.array(np.nan), "count is of float64, not of real numbers"),
        ("count", np.array([5, 5]), r"count is \[2\], not one number"),
        ("features", np.zeros((5, 4)), r"features are \[5, 4\], not \[M, 3\]"),
    ):
        np.savez(path, **good | {name: value})
        with pytest.raises(ValueError, match=rf"bad\.npz: {message}"):
            read_reference(path, 3)
    np.savez(path, **good | {"mu": np.array([1.0, 2.0, 3.0], dtype=">f8")})
    assert read_reference(path, 3).statistics.mu.tolist() == [1, 2, 3]


def test_data_are_known_by_length_and_content():
    def data(count=50, value=0):
        return [{"canvas": torch.full((1, 2, 2), value, dtype=torch.uint8)} for _ in range(count)]

    assert data_identity(data()) == data_identity(data())
    assert len({data_identity(data()), data_identity(data(51)), data_identity(data(value=1))}) == 3
    assert data_identity(data(1)) != data_identity(data(2))
    assert len({data_identity([(item, ["error"]) for item in data(value=value)]) for value in (0, 1, 1)}) == 2
    for changed in range(50):  # data that say nothing of themselves are read as a whole
        other = data()
        other[changed] = {"canvas": torch.ones(1, 2, 2, dtype=torch.uint8)}
        assert data_identity(other) != data_identity(data())
    assert data_identity(Stream()) is None
    assert data_identity(None) is None
