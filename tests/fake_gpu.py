"""A GPU that is not there: its tensors have a device and a shape, but no values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda:0")


class FakeGPU(FakeTensorMode):
    """Tensors of the CPU are real, those of the GPU fake.

    Operators that mix both devices fail as on a GPU, and so does whatever reads a value of the GPU on the host.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        on_gpu = [torch.device(x).type == "cuda" for x in given if isinstance(x, torch.device)]
        if any(on_gpu) or any(isinstance(x, FakeTensor) for x in given):
            return super().__torch_dispatch__(func, types, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def moved(module: nn.Module, mode: FakeTensorMode, monkeypatch: Any) -> nn.Module:
    """Move a real module to a fake GPU, as ``Module.to`` moves it."""
    # A real parameter cannot hold a fake value, so it is replaced; one that occurs twice is on the GPU already.
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    monkeypatch.setattr(torch.utils, "swap_tensors", lambda moved, again: None)
    return module._apply(lambda tensor: mode.from_tensor(tensor).to(GPU))


def answer_reads(monkeypatch: Any, last: int) -> None:
    """Answer what ``tolist`` reads of the GPU: True; numbers are ``last``, and every second time 0 but for row 0."""
    numbers = 0

    def tolist(values: FakeTensor) -> Any:
        nonlocal numbers
        if values.dtype == torch.bool:
            return torch.ones(values.shape, dtype=torch.bool, device="cpu").tolist()
        numbers += 1
        return [last if numbers % 2 == 0 or row == 0 else 0 for row in range(len(values))]

    monkeypatch.setattr(FakeTensor, "tolist", tolist)
