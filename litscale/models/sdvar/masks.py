"""Attention masks of the target over the scales that the draft made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MASKS = ("none", "sd_with_current", "sd_without_current", "causal", "block_with_current", "block_without_current")
"""Names of the masks, in the order of their numbers 0 to 5 in the SDVAR research code."""


def prefix_mask(name: str, patch_nums: Sequence[int], entry_num: int) -> Tensor:
    """Return which token may attend to which, over the draft's scales and the entry scale, the first of the target.

    ============================  =====================================================================================
    ``none``                      everywhere, to later scales too
    ``sd_with_current``           to all earlier scales and to itself, not to its neighbours in its own scale
    ``sd_without_current``        as before, but the entry scale attends everywhere
    ``causal``                    to all earlier scales and its own, as VAR is trained
    ``block_with_current``        to its own scale only
    ``block_without_current``     as before, but the entry scale attends everywhere
    ============================  =====================================================================================

    Args:
        name: one of :data:`MASKS`.
        patch_nums: side of each scale's token map.
        entry_num: number of scales that the draft made, which is the index of the entry scale.

    Returns:
        bool ``[L, L]`` (query, key), with L the tokens of scales 0 to ``entry_num``.

    Raises:
        ValueError: unknown name, or no such scale.
    """
    check_mask(name)
    if not 0 <= entry_num < len(patch_nums):
        raise ValueError(f"entry_num must be in 0..{len(patch_nums) - 1} to have an entry scale, not {entry_num}")
    sides = torch.tensor(patch_nums[: entry_num + 1])
    scale = torch.arange(entry_num + 1).repeat_interleave(sides**2)
    query, key = scale[:, None], scale[None]
    if name == "none":
        return torch.ones(len(scale), len(scale), dtype=torch.bool)
    if name == "causal":
        return query >= key
    itself = torch.eye(len(scale), dtype=torch.bool)
    mask = (query > key) | itself if name.startswith("sd") else query == key
    return mask | (query == entry_num) if name.endswith("without_current") else mask


def check_mask(name: str) -> None:
    """Refuse unknown names.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if name not in MASKS:
        raise ValueError(f"unknown mask {name!r}; known are {', '.join(MASKS)}")
