"""Files of reference statistics, in the layout of ADM and with our additions, and identities of data sets."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from litscale.metrics.fid import Statistics
from litscale.storage.files import write_atomically
from litscale.storage.npz import npz_names, read_npz


@dataclass(frozen=True)
class Reference:
    """The reference that generated images are compared with; it has statistics, images, or both.

    Attributes:
        statistics: Mean and covariance of the features of real images.
        features: Features of real images, float32 ``[M, D]``.
        images: Real images, uint8 ``[M, H, W, 3]``, whose features are still to be extracted.
    """

    statistics: Statistics | None = None
    features: Tensor | None = None
    images: np.ndarray | None = None


def read_reference(path: str | Path, num_features: int) -> Reference:
    """Read an ``.npz`` file in the layout of ADM: ``mu`` and ``sigma``, images ``arr_0``, or both.

    Args:
        path: The file, which may also hold ``count`` and ``features``, as `write_reference` adds them.
        num_features: Number of features D of the extractor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, lacks these entries, or holds statistics of another number of features.
    """
    # 1. the arrays
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"reference: no file {path}; give an .npz with mu and sigma, or with images as arr_0")
    try:
        arrays = read_npz(path, ("mu", "sigma", "count", "features", "arr_0"))
        names = npz_names(path)
    except ValueError as error:
        raise ValueError(f"reference {error}; give another copy") from error
    if not {"mu", "sigma"} <= arrays.keys() and "arr_0" not in arrays:
        raise ValueError(f"reference {path} has neither mu and sigma nor images as arr_0, but {', '.join(names)}")
    for name in arrays.keys() - {"arr_0"}:
        if not np.issubdtype(arrays[name].dtype, np.integer if name == "count" else np.floating):
            raise ValueError(f"reference {path}: {name} is of {arrays[name].dtype}, not of real numbers")
    # 2. mean and covariance
    statistics = None
    if {"mu", "sigma"} <= arrays.keys():
        mu, sigma = arrays["mu"], arrays["sigma"]
        if mu.shape != (num_features,) or sigma.shape != (num_features, num_features):
            raise ValueError(
                f"reference {path} holds mu of shape {list(mu.shape)} and sigma of {list(sigma.shape)}, the extractor "
                f"gives {num_features} features: use the statistics of the same extractor"
            )
        count = arrays.get("count")
        if count is not None and count.size != 1:
            raise ValueError(f"reference {path}: count is {list(count.shape)}, not one number")
        mean, covariance = (torch.from_numpy(array.astype(np.float64)) for array in (mu, sigma))
        statistics = Statistics(mean, covariance, None if count is None else int(count.item()))
    # 3. images and features
    images = arrays.get("arr_0")
    if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
        raise ValueError(f"reference {path}: arr_0 is {images.dtype} {list(images.shape)}, not uint8 [N, H, W, 3]")
    features = arrays.get("features")
    if features is None:
        return Reference(statistics, None, images)
    if features.ndim != 2 or features.shape[1] != num_features:
        raise ValueError(f"reference {path}: features are {list(features.shape)}, not [M, {num_features}]")
    return Reference(statistics, torch.from_numpy(features.astype(np.float32)), images)


def write_reference(path: Path, statistics: Statistics, features: Tensor) -> Path:
    """Write statistics, whose count is known, and features, ``[M, D]``, to a file for `read_reference`.

    Raises:
        OSError: the file could not be written.
    """
    entries: dict[str, Any] = {"mu": statistics.mu.cpu().numpy(), "sigma": statistics.sigma.cpu().numpy()}
    entries |= {"count": np.array(statistics.count, np.int64), "features": features.cpu().numpy()}
    buffer = io.BytesIO()
    np.savez(buffer, **entries)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, buffer.getvalue())


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set that can identify its content without reading all of it."""

    def fingerprint(self) -> str:
        """Return a text that changes if any item does."""


def data_identity(data: Any) -> str | None:
    """Return a hash of the type, length and content of a data set, or None if it cannot be indexed.

    The content is represented by the ``fingerprint()`` of the data set, if it has one. Otherwise all items are read.
    """
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__") or not len(data):
        return None
    digest = hashlib.sha256(f"{type(data).__qualname__} {len(data)}".encode())
    if isinstance(data, Fingerprinted):
        digest.update(data.fingerprint().encode())
        return digest.hexdigest()
    for row in range(len(data)):
        for part in _parts(data[row]):
            digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the bytes of all parts of an item."""
    if isinstance(value, Tensor | np.ndarray):
        array = np.asarray(value)
        yield f"{array.dtype} {array.shape}".encode()
        yield array.tobytes()
    elif isinstance(value, Mapping):
        yield from _parts(list(value.items()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _parts(entry)
    else:
        yield repr(value).encode()
