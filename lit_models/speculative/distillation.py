"""What a draft learns from a target.

Dimensions: B images, L tokens of all scales, V vocabulary.
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
    """Logits that tokens are drawn from, after guidance and temperature, given the tokens before.

    Dropout is off: what is wanted is the network that decodes.

    Args:
        network: draft or target.
        labels: int64 ``[B]``, -1 for no class.
        tokens: int64 ``[B, n]`` of each scale.
        options: ``cfg`` and ``temperature`` count; there should be no filters.

    Returns:
        float32 ``[B, L, V]``.
    """
    inputs = network.vqvae.quantizer.teacher_input(tokens)
    if options.cfg:
        labels, inputs = torch.cat([labels, torch.full_like(labels, -1)]), inputs.repeat(2, 1, 1)
    with evaluating(network):
        raw = network(labels, inputs)
    parts = [options.logits(part, network.progress(k)) for k, part in enumerate(by_scale(network, raw))]
    return torch.cat(parts, dim=1)


def divergence(target: Tensor, draft: Tensor) -> tuple[Tensor, Tensor]:
    """How far a draft is from a target.

    Args:
        target: logits ``[B, L, V]``.
        draft: logits ``[B, L, V]``.

    Returns:
        KL(target || draft) of each token in nats, and the overlap of the two distributions, the sum of ``min(p, q)``:
        the probability that ``rejection`` keeps a token; ``[B, L]`` each.
    """
    log_p, log_q = target.log_softmax(-1), draft.log_softmax(-1)
    p = log_p.exp()
    return (p * (log_p - log_q)).sum(-1), torch.minimum(p, log_q.exp()).sum(-1)


@torch.no_grad()
def teacher_tokens(teacher: VAR, labels: Tensor, options: VARGeneration, seed: int) -> list[Tensor]:
    """Tokens that the teacher draws for classes int64 ``[B]``, int64 ``[B, n]`` of each scale, without pictures."""
    with evaluating(teacher):
        return [step.tokens for step in generate_scales(teacher, labels, options, seed)]
