"""Small copies of weights for sampling, whose time in large models is mostly that of reading float32 weights.

Large linear layers read a copy in bfloat16 or int8; what goes in and comes out keeps its dtype, as do norms,
embeddings, attention, logits and all parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WEIGHTS = ("float32", "bfloat16", "int8")

# A processor's cache holds smaller layers in float32, too, and rounding what goes in takes longer than int8 saves.
SMALLEST = 2**18
# Steps of int8 on either side of zero. Without VNNI, FBGEMM adds pairs of products in 16 bits: with so few steps of a
# weight no pair overflows (2 * 255 * 63 < 2**15). All sums are exact, so a row does not depend on those beside it.
WEIGHT_STEPS, INPUT_STEPS = 63, 127

Linear = Callable[..., Tensor]  # of the input and ``bias``


@dataclass(frozen=True)
class _Copy:
    """A small copy of a layer's weight.

    Attributes:
        fingerprint: identifies the weight that the copy was made from.
        linear: the layer's function of input and bias.
    """

    fingerprint: Tensor
    linear: Linear


_copies: WeakKeyDictionary[nn.Linear, dict[str, _Copy]] = WeakKeyDictionary()  # by layer and kind


@contextmanager
def small_weights(network: nn.Module, weights: str) -> Iterator[None]:
    """Make the large linear layers of a network read small copies of their weights inside the block, without gradients.

    A copy lives as long as its layer, and is replaced when the weight has changed. Contexts must not be nested.

    Args:
        network: the network, whose parameters and state dict stay as they are.
        weights: ``float32`` changes nothing. ``bfloat16`` rounds weights to it. ``int8`` rounds the weights of each
            output channel to 127 steps, and what goes into a layer to 255 steps for each token.

    Raises:
        ValueError: no layer is large enough, so that nothing would change; or int8 on a device that is neither a CPU
            with FBGEMM nor a CUDA GPU.
    """
    layers = [] if weights == "float32" else [layer for layer in network.modules() if is_large(layer)]
    if weights != "float32" and not layers:
        raise ValueError(
            f"weights {weights} changes nothing: no linear layer has {SMALLEST} weights or more, and sides that are "
            "multiples of 8; set generation.weights to float32"
        )
    changed = {layer: _linear(layer, weights) for layer in layers}
    for layer, linear in changed.items():
        vars(layer)["forward"] = partial(linear, bias=layer.bias)
    try:
        yield
    finally:
        for layer in changed:
            del vars(layer)["forward"]


def is_large(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a layer is linear and large enough for small weights, with sides that are multiples of 8."""
    if type(layer) is not nn.Linear or layer.weight.numel() < SMALLEST:
        return False
    return layer.in_features % 8 == 0 and layer.out_features % 8 == 0


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight ``[out, in]`` to whole steps of each output channel.

    Returns:
        int8 ``[out, in]`` in -63..63, and the steps, float32 ``[out]``.
    """
    steps = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / WEIGHT_STEPS
    return (weight.float() / steps[:, None]).round().to(torch.int8), steps


@torch.no_grad()
def _linear(layer: nn.Linear, weights: str) -> Linear:
    """Return the layer's function with a small copy of its weight, which is cached until the weight changes."""
    weight = layer.weight
    # Torch's counters of changes miss some: an exchange of weights for their averages passes them by. A product with
    # fixed numbers misses none that is worth a new copy, and costs as much as one token.
    probe = torch.linspace(-1, 1, layer.in_features, device=weight.device, dtype=torch.float32)
    fingerprint = weight.float() @ probe
    copies = _copies.setdefault(layer, {})
    if weights not in copies or not _equal(copies[weights].fingerprint, fingerprint):
        make = _int8 if weights == "int8" else _bfloat16
        copies[weights] = _Copy(fingerprint, make(weight))
    return copies[weights].linear


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)


def _bfloat16(weight: Tensor) -> Linear:
    """Make the function of a linear layer whose weight is rounded to bfloat16."""
    small = weight.to(torch.bfloat16)
    if _has_fbgemm(weight.device):
        # FBGEMM holds the same numbers in float16. Most processors multiply bfloat16 more slowly than float32
        with _fbgemm():
            packed = torch.ops.quantized.linear_prepack_fp16(small.float(), None)

        def product(x: Tensor) -> Tensor:
            return torch.ops.quantized.linear_dynamic_fp16(x.float(), packed)
    else:

        def product(x: Tensor) -> Tensor:
            return F.linear(x.to(torch.bfloat16), small)

    return lambda x, bias: (product(x) if bias is None else product(x) + bias).to(x.dtype)


def _int8(weight: Tensor) -> Linear:
    """Make the function of a linear layer whose weight, and each token, is rounded to int8.

    Raises:
        ValueError: the device is neither a CPU with FBGEMM nor a CUDA GPU.
    """
    device = weight.device
    if _has_fbgemm(device):
        product = _packed_product(*quantize(weight))
    elif device.type == "cuda":
        product = partial(integer_product, *quantize(weight))
    else:
        raise ValueError(
            "weights int8 need a CUDA GPU or an x86 processor with FBGEMM, which torch lacks here for device "
            f"{device.type}: give weights bfloat16 or float32"
        )

    def linear(x: Tensor, bias: Tensor | None) -> Tensor:
        largest = torch.linalg.vector_norm(x.float(), torch.inf, -1, keepdim=True)
        y = product(x.float() / largest)  # a token of zeros gives any finite numbers here, and zeros below
        return (y.mul_(largest) if bias is None else torch.addcmul(bias.float(), y, largest)).to(x.dtype)

    return linear


def _packed_product(small: Tensor, steps: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of ``x`` that computes :func:`integer_product` with FBGEMM."""
    with _fbgemm(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)  # the type of its tensors is old
        zeros = torch.zeros(len(steps), dtype=torch.long)
        weight = torch._make_per_channel_quantized_tensor(small, steps.double(), zeros, 0)
        packed = torch.ops.quantized.linear_prepack(weight, None)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return lambda x: multiply(x, 1 / INPUT_STEPS, INPUT_STEPS + 1, packed)


def integer_product(small: Tensor, steps: Tensor, x: Tensor) -> Tensor:
    """Multiply rounded inputs by a rounded weight as integer matrices, as GPUs do.

    Args:
        small: weight, int8 ``[out, in]``, as returned by :func:`quantize`.
        steps: steps of its output channels, float32 ``[out]``.
        x: numbers in -1..1, float32 ``[..., in]``, which are rounded to 255 steps.

    Returns:
        float32 ``[..., out]``.
    """
    rows = (x.flatten(0, -2) * INPUT_STEPS).round().to(torch.int8)
    count = len(rows)
    padded = F.pad(rows, (0, 0, 0, max(32, -(-count // 8) * 8) - count))  # GPUs want more than 16, and a multiple of 8
    return (torch._int_mm(padded, small.t())[:count] * (steps / INPUT_STEPS)).unflatten(0, x.shape[:-1])


def _has_fbgemm(device: torch.device) -> bool:
    return device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Make FBGEMM torch's engine for quantised weights inside the block."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
