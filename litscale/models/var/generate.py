"""Generation with VAR, scale by scale, with known tokens.

Dimensions: B images, S scales, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from litscale.models.labels import check_labels
from litscale.models.modes import evaluating
from litscale.models.var.generation_options import PLAIN, VARGeneration
from litscale.models.var.network_state import NetworkState
from litscale.models.var.transformer import VAR


@dataclass
class Sampled:
    """Result of :func:`generate`.

    Attributes:
        tokens: int64 ``[B, n]`` of each scale.
        images: ``[B, C, H, W]`` in [0, 1].
        images_per_scale: the picture after each scale, ``[S, B, C, H, W]``, where it was asked for.
    """

    tokens: list[Tensor]
    images: Tensor
    images_per_scale: Tensor | None = None


class Step(NamedTuple):
    """One scale of :func:`generate_scales`.

    Attributes:
        raw: logits of the network ``[B, n, V]``, or ``[2 B, n, V]`` with the unconditional rows second where the scale
            is guided.
        logits: after guidance, temperature and filters, ``[B, n, V]``; removed tokens are -inf.
        tokens: int64 ``[B, n]``.
        f_hat: accumulation after this scale, ``[B, dim, h, h]``.
    """

    raw: Tensor
    logits: Tensor
    tokens: Tensor
    f_hat: Tensor


@torch.no_grad()
def generate(
    model: VAR,
    labels: Tensor | Sequence[int] | None = None,
    options: VARGeneration = PLAIN,
    seed: int | None = None,
    *,
    tokens: Sequence[Tensor] | None = None,
    known: Sequence[Tensor] | None = None,
    image_index: Tensor | None = None,
    all_scales: bool = False,
    batch_size: int = 1,
) -> Sampled:
    """Generate images.

    With the same seed, image i is the same in every batch: its noise is keyed by seed, image, scale and position.

    Args:
        model: the transformer, with its tokenizer.
        labels: classes, int64 ``[B]``, -1 for no class; none for ``batch_size`` images without class.
        options: how tokens are drawn.
        seed: seed of the noise; None draws one from torch's generator.
        tokens: known tokens, int64 ``[B, n]`` for each scale, read where ``known``.
        known: bool ``[B, n]`` for each scale: positions that keep their token, so that in-painting, out-painting and
            editing by class need no training; :func:`litscale.models.var.token_masks` makes them from a pixel mask.
        image_index: number of each image, int64 ``[B]``; 0, 1, ... without it.
        all_scales: also return the picture after each scale.
        batch_size: number of images without class.

    Raises:
        ValueError: labels that are no integers ``[B]`` or out of range, an image_index of another shape, or known
            tokens that do not fit.
    """
    classes, images, seed = filled_in(model, labels, image_index, seed, batch_size)
    _check_known(model, len(classes), tokens, known)
    with evaluating(model):
        steps = list(generate_scales(model, classes, options, seed, tokens=tokens, known=known, image_index=images))
        pictures = [model.vqvae.decode(step.f_hat).add(1).div(2) for step in (steps if all_scales else steps[-1:])]
    return Sampled([step.tokens for step in steps], pictures[-1], torch.stack(pictures) if all_scales else None)


def generate_scales(
    model: VAR,
    labels: Tensor,
    options: VARGeneration,
    seed: int,
    *,
    tokens: Sequence[Tensor] | None = None,
    known: Sequence[Tensor] | None = None,
    image_index: Tensor | None = None,
) -> Iterator[Step]:
    """Draw and yield one scale after the other; the arguments are those of :func:`generate`.

    Gradients are kept and the model's mode is left as it is: call it without gradients and in evaluation.
    """
    quantizer = model.vqvae.quantizer
    images = torch.arange(len(labels), device=labels.device) if image_index is None else image_index
    # 1. the modulation by the classes; guidance runs each image without class, too
    state = NetworkState.open(model, labels, options)
    f_hat = quantizer.start(len(labels))
    for k in range(model.scales):
        # 2. all logits of the scale in one pass, given the scales before
        (raw,) = state.read([f_hat])
        progress = model.progress(k)
        # 3. guidance and filters; then draw
        logits = options.at(k).logits(raw, progress)
        noise = options.noise(seed, images, k, logits.shape[1], model.vocab)
        drawn = gumbel_max(logits, noise)
        # 4. known tokens stay as they are
        if tokens is not None and known is not None:
            drawn = torch.where(known[k], tokens[k], drawn)
        # 5. add the scale to the picture's latent map
        if options.smooth:
            codes = quantizer.codebook.weight
            vectors = mixture(logits, noise, progress).to(codes.dtype) @ codes
            if known is not None:
                vectors = torch.where(known[k][..., None], quantizer.codebook(drawn), vectors)
            f_hat = quantizer.add(f_hat, vectors, k)
        else:
            f_hat = quantizer.accumulate(f_hat, drawn, k)
        state.settle(k + 1)
        yield Step(raw, logits, drawn, f_hat)


def filled_in(
    model: VAR, labels: Tensor | Sequence[int] | None, image_index: Tensor | None, seed: int | None, batch_size: int
) -> tuple[Tensor, Tensor, int]:
    """Fill in the arguments that callers may leave out.

    Returns:
        The classes, by default -1, and the number of each image, by default 0, 1, ..., both int64 ``[B]`` on the device
        of the model, and a seed, by default drawn from torch's generator.

    Raises:
        ValueError: labels that are no integers ``[B]``, out of range or none at all; an image_index of another shape.
    """
    classes = torch.as_tensor([-1] * batch_size if labels is None else labels)
    if not len(classes):
        raise ValueError("labels are empty; give at least one, or none for images without class")
    check_labels(classes.cpu(), model.num_classes)
    device = model.pos_emb.device
    images = torch.arange(len(classes), device=device) if image_index is None else image_index.to(device)
    if images.shape != classes.shape:
        raise ValueError(f"image_index must have the shape of labels {list(classes.shape)}, not {list(images.shape)}")
    return classes.to(device, torch.long), images, int(torch.randint(2**62, ())) if seed is None else seed


def gumbel_max(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Draw tokens int64 ``[B, n]`` from logits ``[B, n, V]`` by the Gumbel-max trick; no noise draws the likeliest."""
    return (logits if noise is None else logits + noise).argmax(-1)


def mixture(logits: Tensor, noise: Tensor | None, progress: float) -> Tensor:
    """Compute the weights of codes in a smooth picture, ``[B, n, V]`` (Gumbel softmax, arXiv 1611.01144)."""
    sharper = logits * (1 + progress)
    return ((sharper if noise is None else sharper + noise) / max(0.27 * (1 - 0.95 * progress), 0.005)).softmax(-1)


def _check_known(model: VAR, batch: int, tokens: Sequence[Tensor] | None, known: Sequence[Tensor] | None) -> None:
    """Refuse known tokens whose shapes or codes do not fit the model."""
    if tokens is None and known is None:
        return
    if tokens is None or known is None:
        raise ValueError("tokens and known belong together: give both or neither")
    wanted = [(batch, side**2) for side in model.patch_nums]
    for name, given in (("tokens", tokens), ("known", known)):
        shapes = [tuple(entry.shape) for entry in given]
        if shapes != wanted:
            raise ValueError(f"{name} must have the shapes {wanted}, one for each scale, not {shapes}")
    if any(mask.dtype != torch.bool for mask in known):
        raise ValueError("known must be bool")
    if any(
        bool((((entry < 0) | (entry >= model.vocab)) & mask).any()) for entry, mask in zip(tokens, known, strict=True)
    ):
        raise ValueError(f"tokens must be in 0..{model.vocab - 1}, the tokenizer's vocabulary")
