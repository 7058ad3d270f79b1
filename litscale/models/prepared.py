"""Layers that have prepared what depends on their weights alone, for sampling, which runs them thousands of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]


@contextmanager
def prepared_layers(network: nn.Module) -> Iterator[None]:
    """Make the linear layers and RMS norms of a network dispatch fewer operators inside the block, without gradients.

    Linear layers give the same numbers; on a CPU, RMS norms in float32 give numbers that differ by rounding. Layers
    whose forward pass is already replaced stay as they are, as do all under autocast, which caches converted weights.
    """
    changed = []
    with torch.no_grad():
        for layer in network.modules():
            forward = None if "forward" in vars(layer) else _prepared(layer)
            if forward is not None:
                vars(layer)["forward"] = forward
                changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            del vars(layer)["forward"]


def _prepared(layer: nn.Module) -> Forward | None:
    """Return a faster forward function of a layer; None if there is none."""
    if not isinstance(layer, nn.Linear | nn.RMSNorm) or torch.is_autocast_enabled(layer.weight.device.type):
        return None
    if type(layer) is nn.Linear:
        return _linear(layer.weight.t(), layer.bias)
    if type(layer) is nn.RMSNorm and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32:
        return _rms_norm(layer.weight, layer.eps or 0.0)
    return None


def _linear(weight: Tensor, bias: Tensor | None) -> Forward:
    """Make the forward function of a linear layer from its transposed weight ``[in, out]`` and its bias."""

    def forward(x: Tensor) -> Tensor:
        rows = x if x.ndim == 2 else x.flatten(0, -2)
        y = torch.mm(rows, weight) if bias is None else torch.addmm(bias, rows, weight)
        return y if x.ndim == 2 else y.unflatten(0, x.shape[:-1])

    return forward


def _rms_norm(weight: Tensor, eps: float) -> Forward:
    """Make the forward function of an RMS norm, sqrt(D) x / sqrt(|x|^2 + D eps).

    It needs four operators in place of six, and half the time.
    """
    root = len(weight) ** 0.5
    scaled, least = weight * root, torch.tensor([root * eps**0.5], dtype=weight.dtype)

    def forward(x: Tensor) -> Tensor:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot(least) * scaled

    return forward
