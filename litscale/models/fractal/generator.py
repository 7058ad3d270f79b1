"""What AR and MAR generators share: embedding of patches and conditions, positions, transformer.

Dimensions: B rows, N patches in raster order, P features of a patch, K conditions received, C their width,
G channels of the guiding value, Q features of what comes before, D width of this level, S = prefix + N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn

from litscale.models.fractal.canvas import scan_order
from litscale.models.layers.blocks import Stack, StackConfig
from litscale.models.layers.kv_cache import KVCache, RowKVCache
from litscale.models.layers.rope import rope_table

POSITIONS = ("learned", "rope", "both")


@dataclass(frozen=True)
class GeneratorConfig:
    """The inputs, the positions and the size of a level's transformer.

    Args:
        patch_features: P.
        grid: rows and columns of patches that learned positions cover.
        stack: the transformer blocks, of width D; causal generators have no dropout of the attention weights, as in the
            published code.
        conditions: K, number of conditions received.
        condition_width: C.
        guide_channels: G; 0 for a level without guiding value.
        positions: ``learned``, ``rope`` (any grid) or ``both``.
        scan: order of the patches in an AR sequence and in raster sampling, ``row_major`` or ``column_major``.
        zero_prefix_rope: give condition tokens a rotary table of zeros, which silences their queries and keys, as the
            published AR model does; otherwise they are not rotated.
        lone: hand down a patch's own state only, which is all that the leaf takes.
        periods: lengths, in columns of cells, of the periods in which each patch is given its phase.
        before_features: Q, number of features of the preceding columns; 0 if the level does not read them.
    """

    patch_features: int
    grid: tuple[int, int]
    stack: StackConfig
    conditions: int
    condition_width: int
    _: KW_ONLY
    guide_channels: int = 0
    positions: str = "both"
    scan: str = "row_major"
    zero_prefix_rope: bool = False
    lone: bool = False
    periods: tuple[int, ...] = ()
    before_features: int = 0


class Generator(nn.Module):
    """A level's transformer. Its tokens are the guiding value (if any), the conditions last to first, and the patches.

    Attributes:
        prefix: number of tokens before the patches.
        conditions_out: number of conditions handed down for each patch.
    """

    style: str
    causal: bool

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        stack, guide_channels = config.stack, config.guide_channels
        self.prefix = config.conditions + (guide_channels > 0)
        self.conditions_out = 1 if self.causal or config.lone else 5
        self.patch_emb = nn.Linear(config.patch_features, stack.width)
        self.cond_emb = nn.Linear(config.condition_width, stack.width)
        self.guide_emb = nn.Linear(guide_channels, stack.width) if guide_channels else None
        learned = config.grid[0] * config.grid[1] if config.positions != "rope" else 0
        self.pos_emb = nn.Parameter(torch.empty(self.prefix + learned, stack.width))
        periods, features = config.periods, config.before_features
        self.phase_emb = nn.Parameter(torch.empty(sum(periods), stack.width)) if periods else None
        self.before_emb = nn.Linear(features, stack.width, bias=False) if features else None
        self.mask_token = None if self.causal else nn.Parameter(torch.empty(stack.width))
        self.in_norm = nn.LayerNorm(stack.width, eps=1e-6)
        self.blocks = Stack(replace(stack, attn_dropout=0.0) if self.causal else stack, self.style)
        self.norm = nn.LayerNorm(stack.width, eps=1e-6)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Refuse a grid that learned positions do not cover.

        Raises:
            ValueError: the grid is larger than the one the level was built for, and positions are learned.
        """
        rows, columns = self.config.grid
        if self.config.positions != "rope" and (grid[0] > rows or grid[1] > columns):
            raise ValueError(
                f"learned positions cover a grid of {rows}x{columns} patches, the canvas has "
                f"{grid[0]}x{grid[1]}: build the model with larger sizes or with positions 'rope'"
            )

    def embed(self, patches: Tensor) -> Tensor:
        """Embed features, float32 ``[B, n, P]``, as tokens ``[B, n, D]``, without positions."""
        return self.patch_emb(patches.to(self.patch_emb.weight.dtype))

    def prefix_tokens(self, conditions: Tensor, guide: Tensor | None) -> Tensor:
        """Embed conditions ``[B, K, C]`` and guiding value ``[B, G]`` as tokens ``[B, prefix, D]`` without position."""
        tokens = self.cond_emb(conditions).flip(1)
        if self.guide_emb is not None and guide is not None:
            embedded = self.guide_emb(guide.to(self.guide_emb.weight.dtype))
            tokens = torch.cat([embedded[:, None], tokens], dim=1)
        return tokens

    def phases(self, columns: Tensor) -> Tensor | None:
        """Return the local conditioning of patches by their phase in each period, to be added to tokens.

        Args:
            columns: number of each patch's first column of cells within its piece, int64 ``[B, N]``.

        Returns:
            ``[B, N, D]``, or None without periods.
        """
        if self.phase_emb is None:
            return None
        tables = self.phase_emb.split(self.config.periods)
        return torch.stack([table[columns % len(table)] for table in tables]).sum(0)

    def preceded(self, before: Tensor | None) -> Tensor | None:
        """Return the local conditioning ``[B, N, D]`` by the preceding columns, features ``[B, N, Q]``, or None."""
        if self.before_emb is None or before is None:
            return None
        return self.before_emb(before.to(self.before_emb.weight.dtype))

    def states(
        self,
        tokens: Tensor,
        added: Tensor,
        rope: Tensor | None,
        caches: Sequence[KVCache | RowKVCache] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Run the transformer over tokens ``[B, L, D]``, given the embeddings and rotary table of their positions.

        A mask, bool ``[B or 1, 1, L, S]``, says which tokens see which. Without one, tokens of causal generators see
        no later ones, and those of others see all.
        """
        return self.norm(self.blocks(self.in_norm(tokens + added), self.causal, rope, caches, mask))

    def position_tables(self, grid: tuple[int, int], order: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the tables of positions for a sequence of patches in ``order`` (raster indices ``[n]``).

        Returns:
            Embeddings to add, ``[prefix + n, D]``, and the rotary table ``[prefix + n, d / 2]`` or None.
        """
        config = self.config
        rows, columns = order // grid[1], order % grid[1]
        if config.positions == "rope":
            added = torch.cat([self.pos_emb, self.pos_emb.new_zeros(len(order), config.stack.width)])
        else:
            cells = self.prefix + rows * config.grid[1] + columns
            added = torch.cat([self.pos_emb[: self.prefix], self.pos_emb[cells]])
        if config.positions == "learned":
            return added, None
        table = rope_table(rows, columns, config.stack.width // config.stack.heads)
        neutral = torch.full_like(table[:1], 0 if config.zero_prefix_rope else 1).expand(self.prefix, -1)
        return added, torch.cat([neutral, table])

    def order(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Return the raster indices of the patches in sequence order, int64 ``[N]``."""
        return scan_order(grid, self.config.scan if self.causal else "row_major", device)
