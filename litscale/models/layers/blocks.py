"""Transformer blocks: the two pre-norm styles that the published generators use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from litscale.models.layers.attention import Attention, causal_mask
from litscale.models.layers.kv_cache import KVCache, RowKVCache, StepKVCache, TokenCache


class GeluMLP(nn.Module):
    """Two linear layers with a GELU between them and biases; ``approximate`` is the GELU's, ``none`` or ``tanh``."""

    def __init__(self, width: int, ratio: float = 4.0, dropout: float = 0.0, approximate: str = "none") -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.approximate = approximate
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., D]`` to ``[..., D]``."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x), approximate=self.approximate))))


class SwiGLU(nn.Module):
    """Gated feed-forward of LLaMA (arXiv 2002.05202), hidden width rounded up to a multiple of 256, no biases."""

    def __init__(self, width: int, ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = -(-int(width * ratio * 2 / 3) // 256) * 256
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., D]`` to ``[..., D]``."""
        return self.drop(self.down(F.silu(self.gate(x)) * self.up(x)))


@dataclass(frozen=True)
class StackConfig:
    """Size and training options of a stack of blocks.

    Args:
        width: channels ``D``.
        blocks: number of blocks.
        heads: attention heads.
        attn_dropout: dropout of the attention weights.
        proj_dropout: dropout after the attention's and the feed-forward's output.
        grad_checkpointing: recompute the activations of each block in the backward pass instead of keeping them.
    """

    width: int
    blocks: int
    heads: int
    _: KW_ONLY
    attn_dropout: float = 0.0
    proj_dropout: float = 0.0
    grad_checkpointing: bool = False


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection.

    Args:
        config: width, heads and dropout.
        style: ``vit`` (LayerNorm, GELU, biases) or ``llama`` (RMSNorm, SwiGLU, no biases).
    """

    def __init__(self, config: StackConfig, style: str) -> None:
        super().__init__()
        width, vit = config.width, style == "vit"
        self.norm1 = nn.LayerNorm(width, eps=1e-6) if vit else nn.RMSNorm(width, eps=1e-5)
        self.attn = Attention(
            width,
            config.heads,
            bias=vit,
            attn_dropout=config.attn_dropout,
            proj_dropout=config.proj_dropout,
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6) if vit else nn.RMSNorm(width, eps=1e-5)
        self.mlp = (GeluMLP if vit else SwiGLU)(width, dropout=config.proj_dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rope: Tensor | None = None,
        cache: KVCache | RowKVCache | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Map tokens ``[B, L, D]`` to ``[B, L, D]``; the other arguments are those of :meth:`Attention.forward`."""
        x = x + self.attn(self.norm1(x), mask, rope, cache, causal)
        return x + self.mlp(self.norm2(x))

    def step(self, x: Tensor, rope: Tensor | None, cache: TokenCache) -> Tensor:
        """Map one token of each row, ``[B, D]``; the other arguments are those of :meth:`Attention.step`."""
        x = x + self.attn.step(self.norm1(x), rope, cache)
        return x + self.mlp(self.norm2(x))


class Stack(nn.ModuleList):
    """Blocks in sequence.

    Args:
        config: number of blocks, and their options.
        style: as in :class:`Block`.
    """

    def __init__(self, config: StackConfig, style: str) -> None:
        super().__init__(Block(config, style) for _ in range(config.blocks))
        self.grad_checkpointing = config.grad_checkpointing

    def forward(
        self,
        x: Tensor,
        causal: bool = False,
        rope: Tensor | None = None,
        caches: Sequence[KVCache | RowKVCache] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map tokens ``[B, L, D]`` to ``[B, L, D]``; ``caches`` holds one cache per block.

        The mask says which tokens see which. Without one, each token sees the cached tokens and all of ``x`` or, if
        ``causal`` is true, of ``x`` only itself and those before it.
        """
        new, held = x.shape[1], caches[0].length if caches else 0
        # one new token sees all that is held, and where nothing is held, attention has the triangle built in
        if mask is None and causal and held and new > 1:
            mask = causal_mask(new, held + new, x.device)
        for i, block in enumerate(self):
            options = (mask, rope, None if caches is None else caches[i], causal and not held and mask is None)
            if self.grad_checkpointing and self.training and caches is None:
                x = checkpoint(block, x, *options, use_reentrant=False)
            else:
                x = block(x, *options)
        return x

    def step(self, x: Tensor, rope: Tensor | None, caches: Sequence[TokenCache]) -> Tensor:
        """Map one token of each row, ``[B, D]``, in sampling; the arguments are as in :meth:`Block.step`."""
        for block, cache in zip(cast("Iterable[Block]", self), caches, strict=True):
            x = block.step(x, rope, cache)
        return x

    def caches(self, capacity: int) -> list[StepKVCache]:
        """Make empty caches, one per block, for sequences of at most ``capacity`` tokens."""
        return [StepKVCache(capacity, block.attn.heads) for block in cast("Iterable[Block]", self)]
