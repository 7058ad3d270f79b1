"""The VAR transformer: all tokens of a scale at once, given the scales before (arXiv 2404.02905).

Dimensions: B images, S scales, n tokens of a scale, L tokens of all scales, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from litscale.models.labels import check_labels
from litscale.models.precision import at_least_float32
from litscale.models.var.blocks import BlockConfig, VARBlock, modulated_norm
from litscale.models.var.cache import Cache, Condition
from litscale.models.var.pruning import PrunedPass
from litscale.models.var.scale_attention import check_attention, scale_causal
from litscale.models.var.vqvae import VQVAE


class VAR(nn.Module):
    """Predicts the tokens of each scale from the class and the scales before.

    The model holds its tokenizer frozen, without owning it: the tokenizer follows ``.to(device)``, but is excluded
    from ``parameters()`` and ``state_dict()``, and several models may hold the same one. Scales, vocabulary and the
    width of codes are read from it. It stays in float32 when the model is converted to half precision, since other
    weights would give other tokens.

    Args:
        vqvae: the trained tokenizer; it is switched to evaluation and frozen.
        num_classes: number of class labels; 0 for a model without classes.
        depth: number of blocks.
        width: channels D; 64 times the depth if none is given.
        heads: attention heads; as many as blocks if none is given.
        mlp_ratio: hidden width of the feed-forward in units of D.
        shared_aln: compute the classes' modulation once for all blocks, which saves a third of the parameters.
        attn_l2_norm: normalise queries and keys.
        attn_dropout: dropout of the attention weights.
        dropout: dropout after attention and within the feed-forward.
        drop_path: probability that the last block's branches are skipped; it grows linearly from block to block.
        label_drop: probability that a label is replaced by "no class" in training, for classifier-free guidance.
        grad_checkpointing: recompute activations in the backward pass to save memory.
        attention: how all scales at once are computed: dense (a mask), scales (a call for each scale) or flex
            (FlexAttention; trains on GPUs only); null = scales for long sequences on a CPU, else dense.

    Raises:
        ValueError: the heads do not divide the width, or the attention is unknown or does not go with attn_dropout.
    """

    scale_of: Tensor
    may_attend: Tensor

    def __init__(
        self,
        vqvae: VQVAE,
        num_classes: int,
        depth: int,
        width: int | None = None,
        heads: int | None = None,
        mlp_ratio: float = 4.0,
        shared_aln: bool = False,
        attn_l2_norm: bool = True,
        attn_dropout: float = 0.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        label_drop: float = 0.1,
        grad_checkpointing: bool = False,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        # 1. options, and what the tokenizer decides
        check_attention(attention, attn_dropout)
        self._held = (vqvae.eval().requires_grad_(False),)  # in a tuple, so that nn.Module does not register it
        width = 64 * depth if width is None else width
        heads = depth if heads is None else heads
        self.patch_nums, self.vocab = vqvae.patch_nums, vqvae.vocab
        self.num_classes, self.label_drop = num_classes, label_drop
        self.grad_checkpointing, self.attention = grad_checkpointing, attention
        self.bounds = [0, *accumulate(side**2 for side in self.patch_nums)]
        # 2. what a token enters with: class, position, scale and the map so far
        self.class_emb = nn.Embedding(num_classes + 1, width)
        self.pos_start = nn.Parameter(torch.empty(1, self.bounds[1], width))
        self.pos_emb = nn.Parameter(torch.empty(1, self.length, width))
        self.scale_emb = nn.Embedding(self.scales, width)
        self.word_emb = nn.Linear(vqvae.dim, width)
        # 3. the blocks and the head
        self.shared_modulation = nn.Linear(width, 6 * width) if shared_aln else None
        config = BlockConfig(
            width,
            heads,
            mlp_ratio=mlp_ratio,
            shared_aln=shared_aln,
            attn_l2_norm=attn_l2_norm,
            attn_dropout=attn_dropout,
            dropout=dropout,
        )
        blocks = nn.ModuleList(VARBlock(config, drop_path * i / max(depth - 1, 1)) for i in range(depth))
        self.blocks = cast("list[VARBlock]", blocks)  # typed, which a ModuleList is not
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, self.vocab)
        # 4. which tokens each token sees: those of its scale and of the scales before
        sides = torch.tensor(self.patch_nums)
        scale_of = torch.arange(self.scales).repeat_interleave(sides**2, output_size=self.length)
        self.register_buffer("scale_of", scale_of, persistent=False)
        self.register_buffer("may_attend", scale_of[:, None] >= scale_of, persistent=False)
        self._initialise(width, depth)

    @property
    def vqvae(self) -> VQVAE:
        """The tokenizer."""
        return self._held[0]

    @property
    def scales(self) -> int:
        """Number of scales S."""
        return len(self.patch_nums)

    @property
    def length(self) -> int:
        """Number of tokens L of all scales; scale k has those from ``bounds[k]`` to ``bounds[k + 1]``."""
        return self.bounds[-1]

    def progress(self, k: int) -> float:
        """Return the position of scale ``k`` among the scales, from 0 to 1; guidance grows with it."""
        return k / max(self.scales - 1, 1)

    def forward(self, labels: Tensor | None, teacher_input: Tensor) -> Tensor:
        """Compute the logits of all scales at once, given the tokens of the scales before each.

        Args:
            labels: int64 ``[B]``, -1 (or none at all) for no class; dropped at random in training.
            teacher_input: ``[B, L - n_0, dim]`` of :meth:`Quantizer.teacher_input`; or that of the leading
                scales only, for progressive training.

        Returns:
            float32 ``[B, L, V]``, or as many positions as the scales given have.

        Raises:
            ValueError: labels on the CPU that are out of range, an input that ends within a scale, or FlexAttention in
                training on a CPU.
        """
        if labels is None:
            labels = torch.full((len(teacher_input),), -1, device=teacher_input.device)
        if self.training and self.label_drop:
            labels = labels.masked_fill(
                torch.rand(len(labels), device=labels.device, dtype=torch.float32) < self.label_drop, -1
            )
        embedding = self._classes(labels)
        x = self.embed(teacher_input, embedding, 0)
        condition = self._block_condition(embedding)
        length = x.shape[1]
        bounds = tuple(bound for bound in self.bounds if bound <= length)
        mask = scale_causal(self.attention, self.may_attend[:length, :length], bounds)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, condition, mask, use_reentrant=False)
            else:
                x = block(x, condition, mask)
        return self._logits(x, self._head_modulation(embedding))

    def condition(self, labels: Tensor) -> Condition:
        """Compute the modulation by classes int64 ``[B]`` (-1 for none), for :meth:`extend`.

        Raises:
            ValueError: labels on the CPU that are out of range.
        """
        embedding = self._classes(labels)
        block_condition = self._block_condition(embedding)
        modulations = [block.modulate(block_condition) for block in self.blocks]
        return Condition(embedding, modulations, self._head_modulation(embedding))

    def new_cache(self) -> Cache:
        """Return an empty cache with room for all scales."""
        return Cache(len(self.blocks), self.length)

    def extend(
        self,
        inputs: Tensor | None,
        condition: Condition,
        cache: Cache,
        first_scale: int,
        *,
        mask: Tensor | None = None,
        pruned: PrunedPass | None = None,
    ) -> Tensor:
        """Compute the logits of one or several consecutive scales, on top of the scales in the cache.

        Args:
            inputs: ``[B, tokens, dim]``: what :meth:`Quantizer.scale_input` gives for each scale, joined;
                scale 0 has none, so None runs scale 0 alone.
            condition: result of :meth:`condition` for the same B images.
            cache: holds the keys and values of the tokens before, and the new ones afterwards.
            first_scale: first scale of the new tokens.
            mask: where a token may attend, bool ``[new tokens, cached + new tokens]``; by default to the whole cache,
                to its own scale and to earlier ones.
            pruned: chooses the tokens that are computed and cached, without a mask of the caller's; none computes all.

        Returns:
            float32 ``[B, new tokens, V]``.

        Raises:
            ValueError: the inputs end within a scale, or the mask has another shape or is given with ``pruned``.
        """
        x = self.embed(inputs, condition.embedding, first_scale)
        new, cached = x.shape[1], cache.length
        start = self.bounds[first_scale]
        if mask is not None and mask.shape != (new, cached + new):
            raise ValueError(f"mask must be [{new}, {cached + new}] (new, cached and new), not {list(mask.shape)}")
        if pruned is not None:
            if mask is not None:
                raise ValueError(
                    "a mask cannot be given for pruned tokens: prune with the mask causal, or make prune null"
                )
            mask = pruned.mask(cached, x.device)
        elif mask is None and start + new > self.bounds[first_scale + 1]:
            mask = F.pad(self.may_attend[start : start + new, start : start + new], (cached, 0), value=True)
        for block, modulation, layer in zip(self.blocks, condition.blocks, cache.layers, strict=True):
            x = block.run(x, modulation, mask, layer, pruned)
        return self._logits(x, condition.head)

    def embed(self, inputs: Tensor | None, classes: Tensor, first_scale: int) -> Tensor:
        """Embed the input of the blocks.

        Args:
            inputs: ``[B, tokens, dim]`` of consecutive scales, or None for scale 0 alone.
            classes: class embeddings ``[B, D]``.
            first_scale: first of these scales.

        Returns:
            ``[B, tokens, D]``, with the n_0 start tokens first where ``first_scale`` is 0.

        Raises:
            ValueError: the inputs end within a scale.
        """
        parts = [] if inputs is None else [self.word_emb(inputs.to(self.word_emb.weight.dtype))]
        if first_scale == 0:
            parts.insert(0, classes[:, None] + self.pos_start)
        start = self.bounds[first_scale]
        end = start + sum(part.shape[1] for part in parts)
        if end not in self.bounds[first_scale + 1 :]:
            raise ValueError(
                f"the input covers tokens {start} to {end}, but scales end at {self.bounds[first_scale + 1 :]}"
            )
        positions = self.pos_emb[:, start:end] + self.scale_emb(self.scale_of[start:end])
        return torch.cat(parts, dim=1) + positions

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.vqvae._apply(at_least_float32(fn), recurse)
        return self

    def _classes(self, labels: Tensor) -> Tensor:
        """Return the class embeddings ``[B, D]``; the last row of the table stands for no class."""
        check_labels(labels, self.num_classes)
        return self.class_emb(labels.where(labels >= 0, self.num_classes))

    def _block_condition(self, embedding: Tensor) -> Tensor:
        """Return what modulates the blocks: class embeddings ``[B, D]``, or the shared part ``[B, 1, 6, D]``."""
        if self.shared_modulation is None:
            return embedding
        return self.shared_modulation(F.silu(embedding)).unflatten(-1, (1, 6, -1))

    def _head_modulation(self, embedding: Tensor) -> Tensor:
        return self.head_modulation(F.silu(embedding)).unflatten(-1, (1, 2, -1))

    def _logits(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale, shift = modulation.unbind(2)
        return self.head(modulated_norm(x, scale, shift)).float()

    def _initialise(self, width: int, depth: int) -> None:
        """Initialise the weights with small normals.

        Gates near zero and a flat head make training start from near-uniform predictions.
        """
        std = (1 / width / 3) ** 0.5
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std)
        for position in (self.pos_start, self.pos_emb):
            nn.init.trunc_normal_(position, std=std)
        gates = slice(None, 2 * width)
        with torch.no_grad():
            self.head.weight *= 0.02
            self.head_modulation.weight *= 0.5
            for block in self.blocks:
                block.attn.proj.weight /= (2 * depth) ** 0.5
                block.mlp.fc2.weight /= (2 * depth) ** 0.5
                if block.modulation is not None:
                    block.modulation.weight *= 0.5
                    block.modulation.weight[gates] *= 2e-5
                if block.modulation_table is not None:
                    nn.init.normal_(block.modulation_table, std=width**-0.5)
                    block.modulation_table[:, :, 2:] *= 0.5
                    block.modulation_table[:, :, :2] *= 1e-5
