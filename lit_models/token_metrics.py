"""Likelihood and accuracy of tokens, scale by scale, beside what the tokens' frequencies alone are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.metrics.mean import Mean
from litscale.models.var import VAR


class TokenMetrics(nn.ModuleDict):
    """Means of one stage over all images and all processes.

    ``nats_per_token``, ``nats_per_image``, ``accuracy`` (share of tokens that are the likeliest), each scale's
    ``loss/scale_k`` (nats per token) and ``accuracy/scale_k``, and of the unigram model ``unigram_nats_per_token`` and
    ``unigram_nats_per_image``.

    Args:
        scales: S.
    """

    def __init__(self, scales: int) -> None:
        names = ["nats_per_token", "nats_per_image", "accuracy", "unigram_nats_per_token", "unigram_nats_per_image"]
        names += [f"{name}/scale_{k}" for k in range(scales) for name in ("loss", "accuracy")]
        super().__init__({name: Mean() for name in names})

    @property
    def means(self) -> Mapping[str, Mean]:
        """The means by name."""
        return cast("Mapping[str, Mean]", self)

    def record(self, model: VAR, logits: Tensor, tokens: Tensor, frequencies: Tensor) -> None:
        """Take in a batch.

        Args:
            model: for the bounds of its scales.
            logits: ``[B, L, V]``.
            tokens: int64 ``[B, L]``.
            frequencies: how often each code was seen at each scale, ``[S, V]``.
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
    """Nats of each token, and 1 where it is the likeliest one, float32 ``[B, L]`` each."""
    nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return nats, (logits.argmax(-1) == tokens).float()


def by_scale(model: VAR, values: Tensor) -> list[Tensor]:
    """``[B, L]`` cut into the scales that it covers, ``[B, n]`` each."""
    ends = [end for end in model.bounds[1:] if end <= values.shape[1]]
    return list(values.split([end - start for start, end in zip([0, *ends], ends, strict=False)], dim=1))


def unigram_nats(frequencies: Tensor) -> Tensor:
    """Nats of each code at each scale by its frequency there plus one, float32 ``[S, V]``."""
    counts = frequencies.double() + 1
    return -(counts / counts.sum(1, keepdim=True)).log().float()
