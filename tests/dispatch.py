"""Counts of the operators that code dispatches and of the values that it reads on the host: no clock is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
COPIES = (Tensor.tolist, Tensor.cpu)  # of a tensor on the CPU they dispatch nothing


@dataclass
class Counts:
    """What was dispatched while a function ran.

    Attributes:
        by_name: how often each operator was dispatched, by its name, as ``aten.mm.default``.
        views: number of operators among them that return views, and compute nothing.
        reads: how often each operator or method read values of a tensor on the host, by name. On an accelerator each of
            them waits until the device has finished all that was asked of it. ``Tensor.numpy`` is none of them, as it
            refuses tensors that are not on the CPU.
    """

    by_name: Counter[str] = field(default_factory=Counter)
    views: int = 0
    reads: Counter[str] = field(default_factory=Counter)

    @property
    def operators(self) -> int:
        """Number of operators, views included."""
        return self.by_name.total()

    @property
    def host_reads(self) -> int:
        """Number of reads on the host."""
        return self.reads.total()


def count_operators(function: Callable[[], Any]) -> Counts:
    """Run a function, and count the operators that it dispatches, those of backward passes included.

    Whatever runs within one operator, as within a fused optimiser or a compiled graph, is not counted.
    """
    counts = Counts()
    with _Methods(counts), _Operators(counts):
        function()
    return counts


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.counts.by_name[str(func)] += 1
        self.counts.views += func.is_view
        if _reads(func, args, kwargs):
            self.counts.reads[str(func)] += 1
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPIES and args[0].device.type == "cpu":
            self.counts.reads[f"Tensor.{func.__name__}"] += 1
        return func(*args, **(kwargs or {}))


def _reads(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator reads values on the host: those that it returns, or those that give its result its size."""
    if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default):
        return _has_mask(args[1]) and not (len(args) > 2 and args[2].numel() == 1)  # one value fills by masked_fill
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    if func is aten._to_copy.default:
        return args[0].device.type != "cpu" and torch.device(kwargs.get("device") or args[0].device).type == "cpu"
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _has_mask(indices: Iterable[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
