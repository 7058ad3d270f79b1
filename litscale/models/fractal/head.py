"""The leaf: a categorical distribution over the alphabet, channel after channel.

Dimensions: R rows (cells), C channels, A alphabet, K conditions, D their width, W width of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.fractal.guidance import final_logits
from litscale.models.layers.blocks import Stack, StackConfig
from litscale.models.layers.kv_cache import StepKVCache


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
        """Compute teacher-forced logits.

        Args:
            symbols: int64 ``[R, C]``.
            conditions: ``[R, K, D]``.

        Returns:
            ``[R, C, A]``; channel c's depend on the condition and channels before c.
        """
        # In the precision of its weights, also under autocast: rounding lets the leaf's weights drift in training.
        with torch.autocast(conditions.device.type, enabled=False):
            tokens = self.cond_proj(conditions[:, :1].to(self.codebook.dtype))
            if self.channels > 1:
                channel = torch.arange(self.channels - 1, device=symbols.device)
                tokens = torch.cat([tokens, self.codebook[channel, symbols[:, :-1]]], dim=1)
            states = self.norm(self.blocks(self.in_norm(tokens), True))
            return torch.einsum("rcw,caw->rca", states, self.codebook) + self.bias

    def forward(self, symbols: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of symbols ``[R, C]`` in nats, ``[R, C]``, and the logits, float32 ``[R, C, A]``."""
        logits = self.logits(symbols, conditions).float()
        nats = F.cross_entropy(logits.flatten(0, 1), symbols.flatten(), reduction="none").unflatten(0, symbols.shape)
        return nats, logits

    def tables(self) -> HeadTables:
        """Make the tables and caches for cells whose channels are fed one by one."""
        return HeadTables(
            self.codebook.unbind(0), self.codebook.mT.unbind(0), self.bias.unbind(0), self.blocks.caches(self.channels)
        )

    def stepper(self, conditions: Tensor, tables: HeadTables) -> HeadStepper:
        """Start a pass over cells whose channels are fed one by one; ``conditions`` are as in :meth:`logits`."""
        return HeadStepper(self, conditions, tables)


@dataclass(frozen=True)
class HeadTables:
    """Views of the weights by channel, and caches, that batches of cells use one after the other.

    Attributes:
        codebooks: ``[A, W]`` each.
        transposed: the same, ``[W, A]``.
        biases: ``[A]`` each.
        caches: one per block.
    """

    codebooks: Sequence[Tensor]
    transposed: Sequence[Tensor]
    biases: Sequence[Tensor]
    caches: list[StepKVCache]


def draw_channels(
    stepper: HeadStepper,
    noise: Tensor | None,
    cfg: float | Tensor | None,
    symbols: Tensor | None,
    known: Tensor | None,
    rules: Rules,
) -> tuple[Tensor, Tensor | None]:
    """Draw the channels of cells one after the other; arguments and results are as in `Drawing.draw_cells`."""
    of_channel = None if noise is None else noise.unbind(1)
    total = None
    channels: list[Tensor] = []
    for c in range(stepper.head.channels):
        if c:
            stepper.feed(channels[-1] if cfg is None else channels[-1].repeat(2))
        logits = final_logits(stepper.logits(), rules.temperature, cfg, rules.filter_threshold, rules.min_p)
        symbol = (logits if of_channel is None else logits + of_channel[c]).argmax(-1)
        if symbols is not None and known is not None:
            symbol = torch.where(known[:, c], symbols[:, c], symbol)
        channels.append(symbol)
        if rules.scored:
            log_prob = logits.log_softmax(-1).gather(-1, symbol[:, None])[:, 0]
            log_prob = log_prob if known is None else log_prob.masked_fill(known[:, c], 0)
            total = log_prob if total is None else total + log_prob
    return torch.stack(channels, dim=1), total


class Rules(NamedTuple):
    """How symbols are drawn from logits.

    Attributes:
        temperature: divides the logits.
        filter_threshold: as in :func:`litscale.models.fractal.guidance.guided`.
        min_p: as in :func:`litscale.models.fractal.guidance.final_logits`.
        scored: whether log-probabilities are needed.
    """

    temperature: float
    filter_threshold: float
    min_p: float
    scored: bool


class HeadStepper:
    """One pass of a head over cells that are still being written; keys and values of earlier channels are kept."""

    def __init__(self, head: CategoricalHead, conditions: Tensor, tables: HeadTables) -> None:
        self.head, self._tables = head, tables
        for cache in tables.caches:
            cache.truncate(0)
        self._token = head.cond_proj(conditions[:, 0])
        self._channel = 0

    def logits(self) -> Tensor:
        """Return the logits ``[R, A]`` of the next channel, given all that was fed."""
        head, tables, c = self.head, self._tables, self._channel
        state = head.norm(head.blocks.step(head.in_norm(self._token), None, tables.caches))
        return torch.addmm(tables.biases[c], state, tables.transposed[c])

    def feed(self, symbols: Tensor) -> None:
        """Append the symbols, int64 ``[R]``, of the channel that :meth:`logits` predicted."""
        self._token = F.embedding(symbols, self._tables.codebooks[self._channel]).to(self._token.dtype)
        self._channel += 1
