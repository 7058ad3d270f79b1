"""Which images are held out of training: always the same ones, equally many of each class."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def split_of(labels: np.ndarray, **shares: float) -> np.ndarray:
    """Return the split of each image; it depends on nothing but numbers and classes.

    Args:
        labels: int ``[n]``.
        **shares: split -> the share of each class that it gets, such as ``val=0.15``; the rest is for ``train``.

    Returns:
        str ``[n]``.
    """
    result = np.full(len(labels), "train", dtype=f"<U{max(map(len, ['train', *shares]))}")
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda k: sha256(str(k).encode()).digest())
        first = 0
        for split, share in shares.items():
            count = round(share * len(members))
            result[members[first : first + count]] = split
            first += count
    return result
