"""Classifier-free guidance on logits (FractalGen's form, arXiv 2502.17437), and drawing from them."""

from __future__ import annotations

import torch
from torch import Tensor

SCHEDULES = ("linear", "constant")


def scheduled(cfg: float, schedule: str, progress: float) -> float:
    """Guidance scale once ``progress`` (0..1) of the top level's patches is done; ``linear`` rises from 1 to cfg."""
    return cfg if schedule == "constant" else 1.0 + (cfg - 1.0) * progress


def guided(conditional: Tensor, unconditional: Tensor, cfg: float, threshold: float) -> Tensor:
    """Move logits away from the unconditional ones.

    Args:
        conditional: ``[..., A]``.
        unconditional: ``[..., A]``.
        cfg: scale; 1 gives the conditional logits.
        threshold: symbols less probable than this under the condition are not pushed up by guidance.

    Returns:
        ``[..., A]``.
    """
    top = conditional.amax(-1, keepdim=True)
    level = conditional - top + unconditional.amax(-1, keepdim=True)
    rare = conditional.softmax(-1) < threshold
    unconditional = torch.where(rare, torch.maximum(unconditional, level), unconditional)
    return unconditional + cfg * (conditional - unconditional)


def draw_symbols(
    logits: Tensor,
    temperature: float,
    cfg: float | None,
    threshold: float,
    noise: torch.Generator | None,
    greedy: bool,
) -> tuple[Tensor, Tensor]:
    """Draw symbols.

    Args:
        logits: ``[R, A]``, or ``[2 R, A]`` with the unconditional rows second where ``cfg`` is given.
        temperature: divides the logits.
        cfg: guidance scale, or None for rows without an unconditional half.
        threshold: as in :func:`guided`.
        noise: source of randomness; torch's global generator where it is None.
        greedy: take the most probable symbol.

    Returns:
        Symbols int64 ``[R]`` and their log-probabilities, float32 ``[R]``, whatever the dtype of the logits.
    """
    logits = logits.float() / temperature
    if cfg is not None:
        conditional, unconditional = logits.chunk(2)
        logits = guided(conditional, unconditional, cfg, threshold)
    log_probs = logits.log_softmax(-1)
    symbols = log_probs.argmax(-1) if greedy else torch.multinomial(log_probs.exp(), 1, generator=noise)[:, 0]
    return symbols, log_probs.gather(-1, symbols[:, None])[:, 0]
