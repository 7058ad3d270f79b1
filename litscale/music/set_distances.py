"""How far apart two sets of pieces are in each of their features.

The comparison is that of Yang and Lerch (On the evaluation of generative models in music, Neural Computing and
Applications 32, 2020) and of their program mgeval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from litscale.music.features import FEATURES, features
from litscale.music.roll import Roll

POINTS = 1000  # at which densities are compared


def set_distances(generated: Sequence[Roll], data: Sequence[Roll]) -> dict[str, dict[str, float]]:
    """Compute how far generated pieces are from the data in each feature, by relative measures.

    The Euclidean distances of the generated pieces from one another (intra-set) and those of each generated piece from
    each piece of the data (inter-set) are smoothed to densities (Gaussian kernels, Scott's bandwidth).

    Args:
        generated: at least three pieces, each with at least two notes.
        data: at least two pieces, each with at least two notes.

    Returns:
        By feature: ``intra_mean`` and ``intra_std`` of the intra-set distances, ``overlapping_area`` of both densities
        (1 if they are the same) and ``kl_divergence``, D(intra-set || inter-set) of the densities, in nats (0 if they
        are the same). Both are NaN where all distances of one kind are equal, as equal numbers have no density.
        mgeval takes the divergence of densities over two different ranges; here the range is that of all distances.

    Raises:
        ValueError: too few pieces, or a piece with too few notes.
    """
    # scipy takes half a second to import, which programs that only read MIDI files need not wait for
    from scipy.spatial.distance import cdist

    if len(generated) < 3 or len(data) < 2:
        raise ValueError(f"needs 3 generated pieces and 2 of data at least, not {len(generated)} and {len(data)}")
    own, other = ([features(roll) for roll in rolls] for rolls in (generated, data))
    result = {}
    for name in FEATURES:
        ours, theirs = (np.stack([piece[name].ravel() for piece in pieces]) for pieces in (own, other))
        apart = ~np.eye(len(ours), dtype=bool)
        intra, inter = cdist(ours, ours)[apart], cdist(ours, theirs).ravel()
        area, divergence = _compared(intra, inter)
        result[name] = {
            "intra_mean": float(intra.mean()),
            "intra_std": float(intra.std()),
            "overlapping_area": area,
            "kl_divergence": divergence,
        }
    return result


def _compared(intra: np.ndarray, inter: np.ndarray) -> tuple[float, float]:
    """Compute overlapping area and Kullback-Leibler divergence of the densities of two samples of distances."""
    from scipy.special import logsumexp
    from scipy.stats import gaussian_kde

    if np.ptp(intra) == 0 or np.ptp(inter) == 0:
        return float("nan"), float("nan")
    points = np.linspace(min(intra.min(), inter.min()), max(intra.max(), inter.max()), POINTS)
    logs = [gaussian_kde(sample).logpdf(points) for sample in (intra, inter)]
    area = np.trapezoid(np.exp(np.minimum(*logs)), points)
    # both densities scaled to a mass of one over the points, so that no divergence is negative
    own, other = (log - logsumexp(log) for log in logs)
    return float(area), float(np.sum(np.exp(own) * (own - other)))
