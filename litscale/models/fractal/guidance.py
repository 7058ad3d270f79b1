"""Classifier-free guidance on logits (FractalGen's form, arXiv 2502.17437), filters, and drawing from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCHEDULES = ("linear", "constant")


def scheduled(cfg: float, schedule: str, progress: float | Tensor) -> float | Tensor:
    """Return the guidance scale after ``progress`` (0..1) of the top level's patches; ``linear`` goes from 1 to cfg."""
    return cfg if schedule == "constant" else 1.0 + (cfg - 1.0) * progress


def guided(conditional: Tensor, unconditional: Tensor, cfg: float | Tensor, threshold: float) -> Tensor:
    """Move logits away from the unconditional ones.

    Args:
        conditional: logits under the condition, ``[R, ..., A]``.
        unconditional: logits without condition, ``[R, ..., A]``.
        cfg: scale, one for all rows or one for each, ``[R]``; 1 gives the conditional logits.
        threshold: symbols less probable than this under the condition are not pushed up by guidance.

    Returns:
        ``[R, ..., A]``.
    """
    if isinstance(cfg, Tensor):
        cfg = cfg.reshape(-1, *[1] * (conditional.ndim - 1))
    top = conditional.amax(-1, keepdim=True)
    level = conditional - top + unconditional.amax(-1, keepdim=True)
    rare = conditional.softmax(-1) < threshold
    unconditional = torch.where(rare, torch.maximum(unconditional, level), unconditional)
    return unconditional + cfg * (conditional - unconditional)


def final_logits(
    logits: Tensor, temperature: float, cfg: float | Tensor | None, threshold: float, min_p: float
) -> Tensor:
    """Apply temperature, guidance and the filter min_p to logits.

    Args:
        logits: ``[R, ..., A]``, or ``[2 R, ..., A]`` with the unconditional rows second where ``cfg`` is given.
        temperature: divides the logits.
        cfg: guidance scale, as in :func:`guided`, or None for rows without an unconditional half.
        threshold: as in :func:`guided`.
        min_p: symbols that are less probable than this share of the most probable one are removed.

    Returns:
        float32 ``[R, ..., A]``, whatever the dtype of the logits; removed symbols are -inf.
    """
    logits = logits.float()
    if temperature != 1:
        logits = logits / temperature
    if cfg is not None:
        conditional, unconditional = logits.chunk(2)
        logits = guided(conditional, unconditional, cfg, threshold)
    if min_p:
        logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), float("-inf"))
    return logits
