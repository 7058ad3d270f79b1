"""Which class of pieces a piece is nearest to, in the features of `litscale.music.features`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Features = Mapping[str, np.ndarray]


def nearest_classes(pieces: Sequence[Features], data: Sequence[Features], labels: Sequence[int]) -> np.ndarray:
    """Find the class of the data whose mean is nearest to each piece.

    Each dimension of a feature is divided by its standard deviation over all of the data; a dimension in which the data
    do not vary is left out. The squared distance of a piece from a class is that from the mean of the class's data,
    divided by the number of dimensions of the feature that are left, and summed over the features. So a histogram of
    144 cells weighs as much as one number.

    Args:
        pieces: the features of any number of pieces, as `litscale.music.features` gives them; arrays of any shapes.
        data: the features of at least one piece, under the same names and of the same shapes.
        labels: the class of each piece of the data, at least 0; classes may have different numbers of pieces.

    Returns:
        int64 ``[len(pieces)]``, classes that occur in ``labels``; of several that are equally near, the lowest.

    Raises:
        ValueError: there are no data, there is not one label for each of them, or a label is below 0.
    """
    known = np.asarray(labels, dtype=np.int64)
    if not len(data) or known.shape != (len(data),) or known.min() < 0:
        raise ValueError(
            f"nearest classes need pieces of the data, and for each one a class that is at least 0; there are "
            f"{len(data)} pieces with the classes {known.tolist()}"
        )
    classes = np.unique(known)
    distances = np.zeros((len(pieces), len(classes)))
    for name in data[0]:
        ours, theirs = (
            np.array([piece[name] for piece in part]).reshape(len(part), data[0][name].size) for part in (pieces, data)
        )
        varies = np.ptp(theirs, axis=0) > 0  # a standard deviation of equal numbers may be a little above 0
        if not varies.any():
            continue
        ours, theirs = ours[:, varies], theirs[:, varies]
        means = np.stack([theirs[known == each].mean(0) for each in classes])
        distances += np.square((ours[:, None] - means) / theirs.std(0)).mean(-1)
    return classes[distances.argmin(1)]
