"""Drawing tokens scale by scale: guidance, filters, keyed noise, known tokens.

Suffixes: B images, S scales, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from litscale.models.modes import evaluating
from litscale.models.var.noise import gumbel_noise

if TYPE_CHECKING:
    from litscale.models.var.transformer import VAR


@dataclass
class Sampled:
    """Result of sampling.

    Attributes:
        tokens: int64 ``[B, n]`` of each scale.
        images: ``[B, C, H, W]`` in [0, 1].
        images_per_scale: the picture after each scale, ``[S, B, C, H, W]``, where it was asked for.
    """

    tokens: list[Tensor]
    images: Tensor
    images_per_scale: Tensor | None = None


class Step(NamedTuple):
    """One scale of :func:`steps`.

    Attributes:
        raw: logits of the network ``[B, n, V]``, or ``[2 B, n, V]`` with the unconditional rows second.
        logits: after guidance, temperature and filters, ``[B, n, V]``; removed tokens are -inf.
        tokens: int64 ``[B, n]``.
        f_hat: accumulation after this scale, ``[B, dim, h, h]``.
    """

    raw: Tensor
    logits: Tensor
    tokens: Tensor
    f_hat: Tensor


@dataclass(frozen=True)
class ScaleGeneration:
    """How samples are drawn, see :meth:`litscale.models.var.VAR.sample`.

    Args:
        cfg: classifier-free guidance at the last scale, 0 for none; it grows from 0 at the first one.
        top_k: draw among the k likeliest tokens, 0 for all.
        top_p: draw among the likeliest tokens that hold this share of the probability, 0 for all.
        temperature: divides the logits; below 1 is safer.
        greedy: take the likeliest tokens.
        smooth: make the picture from mixtures of codes: smoother, for viewing, not for measuring.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    cfg: float = 1.5
    top_k: int = 0
    top_p: float = 0.0
    temperature: float = 1.0
    greedy: bool = False
    smooth: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.cfg < math.inf:
            raise ValueError(f"cfg must not be negative, not {self.cfg}; 0 is without guidance")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, not {self.top_k}; 0 draws among all tokens")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must be in 0..1, not {self.top_p}; 0 draws among all tokens")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive, not {self.temperature}; greedy takes the likeliest token")


@dataclass(frozen=True)
class Sampling(ScaleGeneration):
    """The same with the seed of the noise; how tokens come from logits.

    Args:
        seed: of the noise.
    """

    seed: int = 0

    def logits(self, raw: Tensor, ratio: float) -> Tensor:
        """Logits to draw from.

        Args:
            raw: ``[B, n, V]``, or ``[2 B, n, V]`` with the unconditional rows second where ``cfg`` is above 0.
            ratio: :meth:`litscale.models.var.VAR.progress` of the scale.

        Returns:
            ``[B, n, V]``; removed tokens are -inf.
        """
        logits = guided(raw, self.cfg * ratio) if self.cfg else raw
        return keep_likely(logits / self.temperature, self.top_k, self.top_p)

    def noise(self, images: Tensor, k: int, n: int, vocab: int) -> Tensor | None:
        """Noise of scale ``k`` for images int64 ``[B]``, float32 ``[B, n, V]``; none when greedy."""
        if self.greedy:
            return None
        return gumbel_noise(self.seed, images, k, torch.arange(n, device=images.device), vocab)


def classes_and_seed(
    labels: Tensor | Sequence[int] | None, seed: int | None, batch_size: int, device: torch.device
) -> tuple[Tensor, int]:
    """What callers may leave out: classes, int64 ``[B]``, -1 where none are given, and a seed of torch's generator."""
    given = [-1] * batch_size if labels is None else labels
    classes = torch.as_tensor(given, dtype=torch.long, device=device)
    return classes, int(torch.randint(2**62, ())) if seed is None else seed


def guided(logits: Tensor, strength: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598).

    Args:
        logits: ``[2 B, n, V]``, conditional rows first.
        strength: t in ``(1 + t) * conditional - t * unconditional``.

    Returns:
        ``[B, n, V]``.
    """
    conditional, unconditional = logits.chunk(2)
    return (1 + strength) * conditional - strength * unconditional


def keep_likely(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set unlikely tokens to -inf: first all below the k-th largest logit (ties stay), then the tail beyond ``top_p``.

    Args:
        logits: ``[..., V]``.
        top_k: number of tokens, 0 for all.
        top_p: share of what is left, 0 for all; the likeliest token always stays (nucleus sampling, arXiv 1904.09751).

    Returns:
        ``[..., V]``.
    """
    if top_k:
        lowest = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < lowest, float("-inf"))
    if top_p:
        ascending, order = logits.sort(dim=-1)
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[..., -1] = False
        logits = logits.masked_fill(torch.zeros_like(tail).scatter(-1, order, tail), float("-inf"))
    return logits


def draw(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Tokens int64 ``[B, n]`` of logits ``[B, n, V]`` by the Gumbel-max rule; the likeliest without noise."""
    return (logits if noise is None else logits + noise).argmax(-1)


def mixture(logits: Tensor, noise: Tensor | None, ratio: float) -> Tensor:
    """Weights of the codes in a smooth picture, ``[B, n, V]`` (Gumbel softmax, arXiv 1611.01144, VAR's schedule)."""
    sharper = logits * (1 + ratio)
    return ((sharper if noise is None else sharper + noise) / max(0.27 * (1 - 0.95 * ratio), 0.005)).softmax(-1)


def steps(
    model: VAR,
    labels: Tensor,
    options: Sampling,
    tokens: Sequence[Tensor] | None = None,
    known: Sequence[Tensor] | None = None,
    image_index: Tensor | None = None,
) -> Iterator[Step]:
    """Draw scale after scale; the arguments are those of :func:`sample`.

    Gradients are kept and the model's mode is left as it is: call it without gradients and in evaluation.
    """
    quantizer = model.vqvae.quantizer
    images = torch.arange(len(labels), device=labels.device) if image_index is None else image_index
    copies = 2 if options.cfg else 1
    condition = model.condition(torch.cat([labels, torch.full_like(labels, -1)]) if options.cfg else labels)
    cache = model.new_cache()
    f_hat = quantizer.start(len(labels))
    for k in range(model.scales):
        inputs = quantizer.scale_input(f_hat, k).repeat(copies, 1, 1) if k else None
        ratio = model.progress(k)
        raw = model.extend(inputs, condition, cache, k)
        logits = options.logits(raw, ratio)
        noise = options.noise(images, k, logits.shape[1], model.vocab)
        drawn = draw(logits, noise)
        if tokens is not None and known is not None:
            drawn = torch.where(known[k], tokens[k], drawn)
        if options.smooth:
            codes = quantizer.codebook.weight
            vectors = mixture(logits, noise, ratio).to(codes.dtype) @ codes
            if known is not None:
                vectors = torch.where(known[k][..., None], quantizer.codebook(drawn), vectors)
            f_hat = quantizer.add(f_hat, vectors, k)
        else:
            f_hat = quantizer.accumulate(f_hat, drawn, k)
        yield Step(raw, logits, drawn, f_hat)


@torch.no_grad()
def sample(
    model: VAR,
    labels: Tensor,
    options: Sampling,
    tokens: Sequence[Tensor] | None = None,
    known: Sequence[Tensor] | None = None,
    image_index: Tensor | None = None,
    all_scales: bool = False,
) -> Sampled:
    """Draw images.

    Args:
        model: the transformer, with its tokenizer.
        labels: int64 ``[B]``, -1 for no class.
        options: how to draw.
        tokens: known tokens, int64 ``[B, n]`` for each scale.
        known: bool ``[B, n]`` for each scale, where ``tokens`` are kept.
        image_index: number of each image, int64 ``[B]``.
        all_scales: also return the picture after each scale.

    Raises:
        ValueError: labels out of range, or known tokens that do not fit.
    """
    _check_known(model, len(labels), tokens, known)
    with evaluating(model):
        made = list(steps(model, labels, options, tokens, known, image_index))
        pictures = [model.vqvae.decode(step.f_hat).add(1).div(2) for step in (made if all_scales else made[-1:])]
    return Sampled([step.tokens for step in made], pictures[-1], torch.stack(pictures) if all_scales else None)


def _check_known(model: VAR, batch: int, tokens: Sequence[Tensor] | None, known: Sequence[Tensor] | None) -> None:
    """Refuse known tokens that are not given as the model's scales."""
    if tokens is None and known is None:
        return
    if tokens is None or known is None:
        raise ValueError("tokens and known belong together: give both or neither")
    wanted = [(batch, side**2) for side in model.patch_nums]
    for name, given in (("tokens", tokens), ("known", known)):
        shapes = [tuple(entry.shape) for entry in given]
        if shapes != wanted:
            raise ValueError(f"{name} must have the shapes {wanted}, one for each scale, not {shapes}")
    if any(bool(((entry < 0) | (entry >= model.vocab)).any()) for entry in tokens):
        raise ValueError(f"tokens must be in 0..{model.vocab - 1}, the tokenizer's vocabulary")
