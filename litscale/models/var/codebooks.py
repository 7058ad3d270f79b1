"""Means against the collapse of a codebook, whose codes otherwise fall out of use one by one.

Dimensions: B images, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class ProjectedCodebook(nn.Module):
    """Codes that are a learned linear map of frozen random vectors (SimVQ, arXiv 2411.02038).

    A step of training moves all codes through the map, not only those that were looked up, so that none of them is left
    behind. It takes the place of ``nn.Embedding``.

    Args:
        vocab: number of codes V.
        dim: channels of the codes.
    """

    base: Tensor

    def __init__(self, vocab: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("base", torch.randn(vocab, dim) * dim**-0.5)
        self.map = nn.Linear(dim, dim)

    @property
    def weight(self) -> Tensor:
        """The codes, ``[V, dim]``."""
        return cast("Tensor", self.map(self.base))

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up the codes of tokens: int64 of any shape ``[...]`` become ``[..., dim]``."""
        return F.embedding(tokens, self.weight)


def rotated(f: Tensor, f_hat: Tensor) -> Tensor:
    """Return the quantised features, and pass their gradient to ``f`` rotated (rotation trick, arXiv 2410.06424).

    At each position, the vector of ``f`` is rotated and scaled to that of ``f_hat``; rotation and scale count as
    constants, so the gradient comes back rotated the other way and scaled alike. It keeps the angle that it has to the
    quantised vector, where a straight-through gradient keeps its direction.

    Args:
        f: features ``[B, dim, h, h]``.
        f_hat: the quantised features, of the same shape; they get no gradient.

    Returns:
        ``f_hat``.
    """
    with torch.no_grad():
        lengths = [part.norm(dim=1, keepdim=True).clamp(min=1e-6) for part in (f, f_hat)]
        e, q = f / lengths[0], f_hat / lengths[1]
        middle = F.normalize(e + q, dim=1)
        scale = lengths[1] / lengths[0]
    # Two reflections: x - 2 m (m . x) + 2 q (e . x), which takes e to q and leaves what is orthogonal to both.
    reflected = middle * (middle * f).sum(1, keepdim=True)
    turned = scale * (f - 2 * reflected + 2 * q * (e * f).sum(1, keepdim=True))
    return turned + (f_hat - turned).detach()  # a vector of zeros has no direction to rotate


def entropy_loss(distances: Tensor, temperature: float) -> Tensor:
    """Return minus the mutual information of queries and codes, as a fraction of its largest possible value.

    A query is assigned to all codes, by a softmax of the negative distances in units of ``temperature`` times the mean
    distance of a nearest code. The mutual information is the entropy of the mean assignment, which grows the more
    evenly codes are used, less the mean entropy of an assignment, without which equal codes would be the best ones
    (arXiv 2310.05737, eq. 5).

    Args:
        distances: squared distances of all queries of one scale to all codes, ``[B n, V]``.
        temperature: how soft the assignment is; 1 assigns a query to the codes that are about as near as the nearest.

    Returns:
        Scalar, from -1 for clear assignments that use all codes evenly to 0.
    """
    unit = temperature * distances.detach().amin(1).mean().clamp(min=1e-12)
    assigned = (-distances / unit).softmax(1)
    single = torch.special.entr(assigned).sum(1).mean()
    together = torch.special.entr(assigned.mean(0)).sum()
    return (single - together) / math.log(distances.shape[1])
