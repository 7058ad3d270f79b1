"""Distillation of a draft: teacher-forced logits, divergence from the target, and tokens of the teacher.

Dimensions: B images, L tokens of all scales, n tokens of a scale, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_models.token_metrics import by_scale
from litscale.models.modes import evaluating
from litscale.models.var import VAR, VARGeneration
from litscale.models.var.generate import generate_scales


def teacher_forced(network: VAR, labels: Tensor, tokens: Sequence[Tensor], options: VARGeneration) -> Tensor:
    """Return the logits of each scale given the tokens of the scales before, after guidance and temperature.

    Dropout is off, as in decoding.

    Args:
        network: The draft or the target.
        labels: int64 ``[B]``, -1 for no class.
        tokens: The tokens of each scale, int64 ``[B, n]``.
        options: Options of generation, without filters; only ``cfg`` and ``temperature`` have an effect.

    Returns:
        float32 ``[B, L, V]``.
    """
    inputs = network.vqvae.quantizer.teacher_input(tokens)
    if options.at(0).cfg:
        labels, inputs = torch.cat([labels, torch.full_like(labels, -1)]), inputs.repeat(2, 1, 1)
    with evaluating(network):
        raw = network(labels, inputs)
    parts = []
    for k, part in enumerate(by_scale(network, raw)):
        drawn = options.at(k)
        parts.append(drawn.logits(part if drawn.cfg else part[: len(tokens[0])], network.progress(k)))
    return torch.cat(parts, dim=1)


def divergence(target: Tensor, draft: Tensor) -> tuple[Tensor, Tensor]:
    """Return the divergence of a draft from a target at each token.

    Args:
        target: Logits of the target, ``[B, L, V]``.
        draft: Logits of the draft, ``[B, L, V]``.

    Returns:
        KL(target || draft) in nats, and the overlap of both distributions, the sum of ``min(p, q)``, which is also the
        probability that the rule `Rejection` keeps a token; ``[B, L]`` each.
    """
    log_p, log_q = target.log_softmax(-1), draft.log_softmax(-1)
    p = log_p.exp()
    return (p * (log_p - log_q)).sum(-1), torch.minimum(p, log_q.exp()).sum(-1)


@torch.no_grad()
def teacher_tokens(teacher: VAR, labels: Tensor, options: VARGeneration, seed: int) -> list[Tensor]:
    """Let the teacher draw the tokens of each scale, int64 ``[B, n]``, for labels int64 ``[B]``."""
    with evaluating(teacher):
        return [step.tokens for step in generate_scales(teacher, labels, options, seed)]
