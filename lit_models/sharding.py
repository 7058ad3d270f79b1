"""Sharding of weights over processes (FSDP2), for the ModelParallelStrategy of Lightning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(networks: Iterable[nn.Module], blocks: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Shard networks, so that each process holds a part of the weights and gathers them block by block in training.

    Args:
        networks: The networks that are trained.
        blocks: The blocks of the networks, of which one at a time has whole weights.
        mesh: The mesh of the strategy, with the dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ValueError: the strategy also splits weights within layers.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            "networks are sharded by data only: give the strategy tensor_parallel_size 1, and the number of processes "
            "as data_parallel_size"
        )
    for part in (*blocks, *networks):
        if not isinstance(part, FSDPModule):
            fully_shard(part, mesh=mesh["data_parallel"])
            # On CPUs torch 2.8 returns the sum of gradients where gloo is asked for their mean.
            cast("FSDPModule", part).set_force_sum_reduction_for_comms(mesh.device_type == "cpu")


def gather(module: nn.Module) -> None:
    """Gather whole weights on each process, which then may run passes on its own; all processes must call this."""
    for part in _sharded(module):
        part._get_fsdp_state()._lazy_init()  # a block that runs before its network would take itself for the root
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def release(module: nn.Module) -> None:
    """Shard weights again after :func:`gather`."""
    for part in _sharded(module):
        is_block = not part._get_fsdp_state()._is_root  # the root stays whole, as the backward pass needs it first
        part.set_reshard_after_forward(is_block, recurse=False)
        part.reshard()


def _sharded(module: nn.Module) -> list[FSDPModule]:
    """Return the sharded networks, each followed by its blocks."""
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
