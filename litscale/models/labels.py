"""Class labels, as every network takes them."""

from __future__ import annotations

import torch
from torch import Tensor


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse what is no batch of classes.

    Args:
        labels: integers ``[B]``, -1 for no class.
        num_classes: number of classes.

    Raises:
        ValueError: another shape or dtype, or labels that are out of range.
    """
    check_shape(labels)
    if bool(((labels < -1) | (labels >= num_classes)).any()):
        raise ValueError(f"labels must be in -1..{num_classes - 1}, got {labels.min()}..{labels.max()}")


def check_shape(labels: Tensor) -> None:
    """Refuse labels that are no integers ``[B]``; ValueError says what they are."""
    if labels.ndim != 1 or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers [B], not {labels.dtype} {list(labels.shape)}")
