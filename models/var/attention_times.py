"""How long each way to compute scale-causal attention takes where a network is."""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor

from models.var.scale_attention import ATTENTIONS, Mask, attend, check_attention, scale_causal
from models.var.transformer import VAR

_ROUNDS, _SECONDS = 3, 0.1  # each way is timed so often, for at least so long, in turn


def attention_times(network: VAR, batch_size: int) -> dict[str, float]:
    """Time a training pass of one block's attention over all scales, forward and backward.

    Runs where the network is, in the precision of autocast where that is on. Takes a few seconds, on a GPU more, as
    FlexAttention is compiled. Draws nothing from torch's generators.

    Args:
        network: gives scales, heads, channels and device.
        batch_size: images in a batch.

    Returns:
        Seconds by the name of the attention. What cannot train there is left out: FlexAttention on a CPU and with
        attn_dropout, and, with a warning, what ends in a RuntimeError, as for too little memory or a missing compiler.

    Raises:
        RuntimeError: none of them runs.
    """
    from torch.utils.benchmark import Timer  # warns where there is no CUDA, so only who measures imports it

    device, block = network.may_attend.device, network.blocks[0].attn
    autocast = torch.is_autocast_enabled(device.type)
    qkv = torch.randn(
        (batch_size, network.length, 3, block.heads, network.head.in_features // block.heads),
        generator=torch.Generator(device).manual_seed(0),
        device=device,
        dtype=torch.get_autocast_dtype(device.type) if autocast else network.head.weight.dtype,
        requires_grad=True,
    )
    timers: dict[str, Timer] = {}
    for name in ATTENTIONS:
        try:
            check_attention(name, block.attn_dropout)
            mask = scale_causal(name, network.may_attend, tuple(network.bounds))
        except ValueError:  # the network would refuse to train with it
            continue
        run = partial(attention_pass, qkv, mask)
        try:
            run()
        except RuntimeError as error:
            warnings.warn(f"attention {name} does not run on {device} and is left out: {error}", stacklevel=2)
        else:
            timers[name] = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    if not timers:
        raise RuntimeError(f"no attention runs on {device} with {batch_size} images; the warnings say why")
    rounds = [
        {name: timer.blocked_autorange(min_run_time=_SECONDS).median for name, timer in timers.items()}
        for _ in range(_ROUNDS)
    ]
    return {name: min(times[name] for times in rounds) for name in timers}


def attention_pass(qkv: Tensor, mask: Mask) -> None:
    """Attention of all scales once, and its backward pass where gradients are wanted.

    Args:
        qkv: ``[B, L, 3, H, d]``, as a block's linear layer makes them.
        mask: of :func:`models.var.scale_attention.scale_causal`.
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    made = attend(q, k, v, mask, q.shape[-1] ** -0.5)
    if made.requires_grad:
        torch.autograd.grad(made, qkv, torch.ones_like(made))
