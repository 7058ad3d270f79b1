"""Weights spread over processes (FSDP2), for Lightning's ModelParallelStrategy."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(networks: Iterable[nn.Module], blocks: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Leave each process with its part of the weights; blocks are gathered one by one in a training pass.

    Args:
        networks: what is trained.
        blocks: parts of them, of which one at a time is whole.
        mesh: of Lightning's strategy, with the dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ValueError: weights are to be split within layers too.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            "networks are sharded by data only: give the strategy tensor_parallel_size 1, and the number of processes "
            "as data_parallel_size"
        )
    for part in (*blocks, *networks):
        if not isinstance(part, FSDPModule):
            fully_shard(part, mesh=mesh["data_parallel"])
            # torch 2.8 on CPUs: where gloo is asked for the mean of gradients, it gives their sum
            part.set_force_sum_reduction_for_comms(mesh.device_type == "cpu")


def gather(module: nn.Module) -> None:
    """Make weights whole on each process, so that one may run passes that the others do not; all must call this."""
    for part in _sharded(module):
        part._get_fsdp_state()._lazy_init()  # a block that runs before its network would take itself for the whole
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def release(module: nn.Module) -> None:
    """Undo :func:`gather`."""
    for part in _sharded(module):
        is_block = not part._get_fsdp_state()._is_root  # of a network, what the backward pass needs first stays whole
        part.set_reshard_after_forward(is_block, recurse=False)
        part.reshard()


def _sharded(module: nn.Module) -> list[FSDPModule]:
    """The networks that are sharded, each followed by its blocks."""
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
