"""Where the levels look: entropy and reach of their attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from litscale.models.fractal.fractal import Fractal
from litscale.models.layers.attention import recorded_attention
from litscale.models.modes import evaluating


@dataclass(frozen=True)
class LevelAttention:
    """Attention of one level's heads, averaged over its queries.

    Attributes:
        entropy: nats, float ``[blocks, heads]``.
        reach: mean distance, in patches, from a patch to the patches it attends to, float ``[blocks, heads]``.
    """

    entropy: Tensor
    reach: Tensor


@torch.no_grad()
def attention_report(model: Fractal, canvas: Tensor, label: Tensor | None = None) -> dict[str, LevelAttention]:
    """Measure the entropy and reach of each level's attention on a batch.

    Whole matrices of attention weights are computed, so keep the batch small. MAR levels hide patches as in a pass of
    the likelihood, the same patches of a canvas every time.

    Args:
        model: the network, whose dropout is off meanwhile.
        canvas: uint8 ``[B, C, H, W]``.
        label: int64 ``[B]``.

    Returns:
        The attention of each level, by its name ``level_<i>``.
    """
    report = {}
    with evaluating(model):
        for i, level in enumerate(model.levels):
            # 1. record the weights of one teacher-forced pass
            generator = level.generator
            with recorded_attention(generator) as weights:
                model.nll(canvas, label, seed=0)
            # 2. distances between patches, in the order of the sequence
            columns = canvas.shape[3] // level.patch[1] if i == 0 else generator.config.grid[1]
            rows = canvas.shape[2] // level.patch[0] if i == 0 else generator.config.grid[0]
            order = generator.order((rows, columns), canvas.device)
            seen = weights[0].shape[-1] - generator.prefix
            place = torch.stack([order // columns, order % columns], dim=1)[:seen].float()
            distance = torch.cdist(place, place)
            # 3. averages over canvases and queries
            entropy, reach = [], []
            for weight in weights:
                entropy.append(torch.special.entr(weight).sum(-1).mean((0, 2)))
                between = weight[:, :, generator.prefix :, generator.prefix :]
                share = between.sum(-1).clamp(min=1e-9)
                reach.append(((between * distance).sum(-1) / share).mean((0, 2)))
            report[f"level_{i}"] = LevelAttention(torch.stack(entropy).cpu(), torch.stack(reach).cpu())
    return report
