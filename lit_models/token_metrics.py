"""Likelihood and accuracy of tokens at each scale, and the likelihood of a unigram model for comparison.

Dimensions: B images, L tokens of all scales, n tokens of a scale, S scales, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.metrics.mean import Mean
from litscale.models.var import VAR


class TokenMetrics(nn.ModuleDict):
    """The metrics of one stage, means over all images and all processes.

    - ``nats_per_token`` and ``nats_per_image``;
    - ``accuracy``, the fraction of tokens that are the likeliest ones;
    - ``loss/scale_<k>``, in nats per token, and ``accuracy/scale_<k>``;
    - ``unigram_nats_per_token`` and ``unigram_nats_per_image``, those of the unigram model.

    Args:
        scales: Number of scales S.
    """

    def __init__(self, scales: int) -> None:
        names = ["nats_per_token", "nats_per_image", "accuracy", "unigram_nats_per_token", "unigram_nats_per_image"]
        names += [f"{name}/scale_{k}" for k in range(scales) for name in ("loss", "accuracy")]
        super().__init__({name: Mean() for name in names})

    @property
    def means(self) -> Mapping[str, Mean]:
        """The metrics by name."""
        return cast("Mapping[str, Mean]", self)

    def record(self, model: VAR, logits: Tensor, tokens: Tensor, frequencies: Tensor) -> None:
        """Update all metrics with a batch.

        Args:
            model: The transformer, which gives the bounds of the scales.
            logits: Float ``[B, L, V]``.
            tokens: int64 ``[B, L]``.
            frequencies: How often each code occurred at each scale in training, ``[S, V]``.
        """
        nats, hit = token_scores(logits, tokens)
        unigram = unigram_nats(frequencies)[model.scale_of, tokens]  # [B, L]
        for prefix, values in (("", nats), ("unigram_", unigram)):
            self.means[f"{prefix}nats_per_token"].update(values)
            self.means[f"{prefix}nats_per_image"].update(values.sum(1))
        self.means["accuracy"].update(hit)
        for name, values in (("loss", nats), ("accuracy", hit)):
            for k, part in enumerate(by_scale(model, values)):
                self.means[f"{name}/scale_{k}"].update(part)


def token_scores(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nats of each token, and 1 if it is the likeliest one, else 0; float32 ``[B, L]`` each."""
    nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return nats, (logits.argmax(-1) == tokens).float()


def by_scale(model: VAR, values: Tensor) -> list[Tensor]:
    """Split values ``[B, L]`` into those of each scale, ``[B, n]``; L may end after any scale."""
    ends = [end for end in model.bounds[1:] if end <= values.shape[1]]
    return list(values.split([end - start for start, end in zip([0, *ends], ends, strict=False)], dim=1))


def trained_tokens(model: VAR, scales: Sequence[int] | None) -> slice:
    """Return the positions whose loss is trained, as a slice of all L.

    Args:
        model: The transformer, which gives the bounds of the scales.
        scales: The first scale that is trained and the first one after it that is not; None for all scales.

    Raises:
        ValueError: the scales are empty or out of range.
    """
    first, end = (0, model.scales) if scales is None else scales
    if not 0 <= first < end <= model.scales:
        raise ValueError(
            f"scales must be [first, end] with 0 <= first < end <= {model.scales}, the number of scales, not "
            f"{[first, end]}"
        )
    return slice(model.bounds[first], model.bounds[end])


def unigram_nats(frequencies: Tensor) -> Tensor:
    """Return the nats of each code at each scale under the unigram model of counts plus one, float32 ``[S, V]``."""
    counts = frequencies.double() + 1
    return -(counts / counts.sum(1, keepdim=True)).log().float()
