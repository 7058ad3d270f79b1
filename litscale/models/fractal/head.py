"""The leaf: a categorical distribution over the alphabet, channel after channel.

Dimensions: R rows (cells), C channels, A alphabet, K conditions, D their width, W width of the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.layers.blocks import Stack, StackConfig
from litscale.models.layers.kv_cache import KVCache


class CategoricalHead(nn.Module):
    """Predicts the channels of a cell one after the other from its condition.

    Tokens are the condition and the channels so far; the state before a channel gives its logits through that channel's
    tied codebook. Of several conditions the first (the cell's own) is used, as in FractalGen. There is no dropout.

    Args:
        stack: the transformer blocks, of width W.
        condition_width: D.
        channels: C.
        alphabet: A.
    """

    def __init__(self, stack: StackConfig, condition_width: int, channels: int, alphabet: int) -> None:
        super().__init__()
        self.channels = channels
        self.cond_proj = nn.Linear(condition_width, stack.width)
        self.codebook = nn.Parameter(torch.empty(channels, alphabet, stack.width))
        self.in_norm = nn.LayerNorm(stack.width, eps=1e-6)
        self.blocks = Stack(stack, "vit")
        self.norm = nn.LayerNorm(stack.width, eps=1e-6)
        self.bias = nn.Parameter(torch.zeros(channels, alphabet))

    def logits(self, symbols: Tensor, conditions: Tensor) -> Tensor:
        """Teacher-forced logits.

        Args:
            symbols: int64 ``[R, C]``.
            conditions: ``[R, K, D]``.

        Returns:
            ``[R, C, A]``; channel c's depend on the condition and channels before c.
        """
        tokens = self.cond_proj(conditions[:, :1])
        if self.channels > 1:
            channel = torch.arange(self.channels - 1, device=symbols.device)
            tokens = torch.cat([tokens, self.codebook[channel, symbols[:, :-1]].to(tokens.dtype)], dim=1)
        states = self.norm(self.blocks(self.in_norm(tokens), True))
        return torch.einsum("rcw,caw->rca", states, self.codebook.to(states.dtype)) + self.bias

    def forward(self, symbols: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of symbols ``[R, C]`` in nats ``[R, C]``, and the logits, float32 ``[R, C, A]``."""
        logits = self.logits(symbols, conditions).float()
        nats = F.cross_entropy(logits.flatten(0, 1), symbols.flatten(), reduction="none").unflatten(0, symbols.shape)
        return nats, logits

    def stepper(self, conditions: Tensor) -> HeadStepper:
        """Start cells whose channels are fed one by one; conditions as in :meth:`logits`."""
        return HeadStepper(self, conditions)


class HeadStepper:
    """One pass of a head over cells that are still being written; keys and values of earlier channels are kept."""

    def __init__(self, head: CategoricalHead, conditions: Tensor) -> None:
        self.head = head
        self._caches = [KVCache(head.channels) for _ in head.blocks]
        self._token = head.cond_proj(conditions[:, 0])
        self._channel = 0

    def logits(self) -> Tensor:
        """Logits ``[R, A]`` of the next channel, given all that was fed."""
        head, c = self.head, self._channel
        state = head.norm(head.blocks(head.in_norm(self._token), True, None, self._caches))
        return F.linear(state, head.codebook[c].to(state.dtype), head.bias[c].to(state.dtype))

    def feed(self, symbols: Tensor) -> None:
        """Append the symbols of that channel, int64 ``[R]``."""
        self._token = self.head.codebook[self._channel][symbols].to(self._token.dtype)
        self._channel += 1
