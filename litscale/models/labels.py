"""Class labels, as every network takes them."""

from __future__ import annotations

import torch
from torch import Tensor


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Check that labels are a batch of classes; their range is checked only if they are on the CPU.

    To read labels from another device, the host would have to wait until the device has finished all its work.
    Modules check the labels of a batch before they move it.

    Args:
        labels: integers ``[B]``, -1 for no class.
        num_classes: number of classes.

    Raises:
        ValueError: another shape or dtype, or a label that is below -1, or ``num_classes`` or above.
    """
    if labels.ndim != 1 or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers [B], not {labels.dtype} {list(labels.shape)}")
    if labels.device.type != "cpu" or not labels.numel():
        return
    numbers = labels.numpy()
    if numbers.min() < -1 or numbers.max() >= num_classes:
        raise ValueError(f"labels must be in -1..{num_classes - 1}, got {numbers.min()}..{numbers.max()}")
