"""The times of the ways to compute scale-causal attention, measured on the device of a network."""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor

from litscale.models.var.scale_attention import ATTENTIONS, Mask, attend, check_attention, scale_causal
from litscale.models.var.transformer import VAR

_ROUNDS, _SECONDS = 3, 0.1  # each way is timed so often, for at least so long, in turn
_TOLERANCE = 0.02  # measured: bfloat16 rounds by less than 0.007; the last 64 of 2240 tokens lost are above 0.06


def attention_times(network: VAR, batch_size: int) -> dict[str, float]:
    """Time a training pass of one block's attention over all scales, forward and backward.

    It runs on the network's device, in the precision of autocast if that is on, and takes a few seconds; more on a GPU,
    as FlexAttention is compiled. It draws nothing from torch's generators.

    Args:
        network: the transformer, for its scales, heads, width and device.
        batch_size: number of images in a batch.

    Returns:
        Seconds by the name of the attention. FlexAttention is left out on a CPU and with attn_dropout, as it cannot
        train there. Left out with a warning are those that end in a RuntimeError, as for too little memory or a missing
        compiler, and those whose results differ from the results of the first one that runs: FlexAttention's kernels
        have been wrong, and not finite in the backward pass (torch's issues 141126 and 153799).

    Raises:
        RuntimeError: none of them runs.
    """
    from torch.utils.benchmark import Timer  # warns where there is no CUDA, so only who measures imports it

    # 1. queries, keys and values like those of a training step
    device, block = network.may_attend.device, network.blocks[0].attn
    autocast = torch.is_autocast_enabled(device.type)
    qkv = torch.randn(
        (batch_size, network.length, 3, block.heads, network.head.in_features // block.heads),
        generator=torch.Generator(device).manual_seed(0),
        device=device,
        dtype=torch.get_autocast_dtype(device.type) if autocast else network.head.weight.dtype,
        requires_grad=True,
    )
    # 2. the attentions that run and agree
    timers: dict[str, Timer] = {}
    expected: list[Tensor] = []
    for name in ATTENTIONS:
        try:
            check_attention(name, block.attn_dropout)
            mask = scale_causal(name, network.may_attend, tuple(network.bounds))
        except ValueError:  # the network would refuse to train with it
            continue
        run = partial(attention_pass, qkv, mask)
        try:
            made = run()
            if expected and not _close(made, expected):
                raise RuntimeError(f"its results are not those of {next(iter(timers))}")
        except RuntimeError as error:
            warnings.warn(f"attention {name} is left out on {device}: {error}", stacklevel=2)
        else:
            expected = expected or made
            timers[name] = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    if not timers:
        raise RuntimeError(f"no attention runs on {device} with {batch_size} images; the warnings say why")
    # 3. their times, in turn, so that a drift of the machine's speed falls on all
    rounds = [
        {name: timer.blocked_autorange(min_run_time=_SECONDS).median for name, timer in timers.items()}
        for _ in range(_ROUNDS)
    ]
    return {name: min(times[name] for times in rounds) for name in timers}


def attention_pass(qkv: Tensor, mask: Mask) -> list[Tensor]:
    """Run the attention of all scales once, and its backward pass if gradients are wanted.

    Args:
        qkv: ``[B, L, 3, H, d]``, as a block's linear layer makes them.
        mask: result of :func:`litscale.models.var.scale_attention.scale_causal`.

    Returns:
        The output ``[B, H, L, d]`` and, with a backward pass, the gradients of queries, keys and values
        ``[B, L, H, d]``.
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    made = attend(q, k, v, mask, q.shape[-1] ** -0.5)
    if not made.requires_grad:
        return [made]
    (gradient,) = torch.autograd.grad(made, qkv, torch.ones_like(made))
    return [made.detach(), *gradient.unbind(2)]


def _close(made: list[Tensor], expected: list[Tensor]) -> bool:
    """Return whether each result is close to the expected one in norm; a result that is not finite never is."""
    return all(
        bool((one.float() - other.float()).norm() <= _TOLERANCE * other.float().norm())
        for one, other in zip(made, expected, strict=True)
    )
