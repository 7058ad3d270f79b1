"""The range of class labels."""

from __future__ import annotations

from torch import Tensor


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels that are out of range, as long as they are on the CPU.

    To read labels on another device, the host would have to wait until the device has done all that was asked of it.
    Modules check the labels of a batch before they move it.

    Args:
        labels: int64 ``[B]``, -1 for no class.
        num_classes: number of classes.

    Raises:
        ValueError: a label is below -1, or ``num_classes`` or above.
    """
    if labels.device.type != "cpu" or not labels.numel():
        return
    numbers = labels.numpy()
    if numbers.min() < -1 or numbers.max() >= num_classes:
        raise ValueError(f"labels must be in -1..{num_classes - 1}, got {numbers.min()}..{numbers.max()}")
