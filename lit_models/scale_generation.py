"""How VAR draws samples, and which tokens a known part of a picture forces."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.var import VQVAE, Planes, Sampling, token_masks


@dataclass(frozen=True)
class ScaleGeneration:
    """How samples are drawn, see :meth:`models.var.VAR.sample`.

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
        Sampling(**asdict(self))


@torch.no_grad()
def known_tokens(vqvae: VQVAE, planes: Planes, canvas: Tensor, known: Tensor) -> dict[str, list[Tensor]]:
    """What known cells force.

    Tokens of which at least half the cells are known are those of the known picture, in which the mean of its known
    cells fills the rest.

    Args:
        vqvae: the tokenizer.
        planes: what its channels stand for.
        canvas: symbols, uint8 ``[B, C, H, W]``, read where they are known.
        known: bool ``[B, C, H, W]``; a pixel is known if all its channels are.

    Returns:
        ``tokens`` int64 and ``known`` bool, ``[B, n]`` for each scale.
    """
    pixels = known.all(1)  # [B, H, W]
    inside = pixels[:, None]
    values = planes.to_planes(canvas)
    mean = (values * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    with torch.autocast(canvas.device.type, enabled=False):
        tokens = vqvae.encode(torch.where(inside, values, mean))
    return {"tokens": tokens, "known": token_masks(pixels, vqvae.patch_nums)}
