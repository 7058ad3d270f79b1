"""Weights spread over processes (FSDP2), for Lightning's ModelParallelStrategy."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(network: nn.Module, blocks: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Leave each process with its part of the weights; blocks are gathered one by one in a training pass.

    Args:
        network: what is trained.
        blocks: parts of it, of which one at a time is whole.
        mesh: of Lightning's strategy, with the dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ValueError: weights are to be split within layers too.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            "networks are sharded by data only: give the strategy tensor_parallel_size 1, and the number of processes "
            "as data_parallel_size"
        )
    if isinstance(network, FSDPModule):
        return
    for block in blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])


def gather(module: nn.Module) -> None:
    """Make weights whole on each process, so that one may run passes that the others do not; all must call this."""
    parts = _sharded(module)
    for network in parts[:1]:
        network._get_fsdp_state()._lazy_init()  # a block that runs before the network would take itself for the whole
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def release(module: nn.Module) -> None:
    """Undo :func:`gather`."""
    for i, part in enumerate(_sharded(module)):
        part.set_reshard_after_forward(i > 0, recurse=False)  # what the backward pass needs first stays whole
        part.reshard()


def _sharded(module: nn.Module) -> list[FSDPModule]:
    """The network, if it is sharded, and its blocks."""
    return [part for part in module.modules() if isinstance(part, FSDPModule)]
