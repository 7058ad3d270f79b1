"""Transformer blocks: the two pre-norm styles that the published generators use."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from litscale.models.layers.attention import Attention
from litscale.models.layers.kv_cache import KVCache
from litscale.models.layers.recomputing import run_block


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


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection.

    Args:
        width: channels ``D``.
        heads: attention heads.
        style: ``vit`` (LayerNorm, GELU, biases) or ``llama`` (RMSNorm, SwiGLU, no biases).
        attn_dropout: dropout of the attention weights.
        proj_dropout: dropout after the attention's and the feed-forward's output.
    """

    def __init__(
        self, width: int, heads: int, style: str, attn_dropout: float = 0.0, proj_dropout: float = 0.0
    ) -> None:
        super().__init__()
        vit = style == "vit"
        self.norm1 = nn.LayerNorm(width, eps=1e-6) if vit else nn.RMSNorm(width, eps=1e-5)
        self.attn = Attention(width, heads, vit, attn_dropout, proj_dropout)
        self.norm2 = nn.LayerNorm(width, eps=1e-6) if vit else nn.RMSNorm(width, eps=1e-5)
        self.mlp = GeluMLP(width, dropout=proj_dropout) if vit else SwiGLU(width, dropout=proj_dropout)

    def forward(
        self, x: Tensor, causal: bool = False, rope: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Map tokens ``[B, L, D]`` to ``[B, L, D]``; the options are those of the attention."""
        x = x + self.attn(self.norm1(x), causal, rope, cache)
        return x + self.mlp(self.norm2(x))


class Stack(nn.ModuleList):
    """Blocks in sequence.

    Args:
        depth: number of blocks.
        width: channels ``D``.
        heads: attention heads.
        style: as in :class:`Block`.
        attn_dropout: as in :class:`Block`.
        proj_dropout: as in :class:`Block`.
        grad_checkpointing: recompute the activations of each block in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        style: str,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__(Block(width, heads, style, attn_dropout, proj_dropout) for _ in range(depth))
        self.grad_checkpointing = grad_checkpointing

    def forward(
        self,
        x: Tensor,
        causal: bool = False,
        rope: Tensor | None = None,
        caches: list[KVCache] | None = None,
    ) -> Tensor:
        """Map tokens ``[B, L, D]`` to ``[B, L, D]``; ``caches`` holds one cache per block."""
        recompute = self.grad_checkpointing and self.training and caches is None
        for i, block in enumerate(self):
            x = run_block(block, x, causal, rope, None if caches is None else caches[i], recompute=recompute)
        return x
