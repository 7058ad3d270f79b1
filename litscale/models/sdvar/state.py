"""What a decoder carries from scale to scale, for images that have come equally far.

Suffixes: B images, S scales, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from litscale.models.var import VAR, Cache, Condition, Sampling
from litscale.models.var.sampling import draw, keep_likely


class Draw(NamedTuple):
    """One scale drawn by one network.

    Attributes:
        full: logits after guidance and temperature, ``[B, n, V]``.
        logits: the same after the filters, what the tokens are drawn from; removed tokens are -inf.
        noise: Gumbel noise ``[B, n, V]``; both networks use the same.
        tokens: int64 ``[B, n]``.
    """

    full: Tensor
    logits: Tensor
    noise: Tensor
    tokens: Tensor

    def lead(self) -> Tensor:
        """By how much the drawn tokens beat the runner-up (logits plus noise), least over the tokens, ``[B]``."""
        perturbed = self.logits + self.noise
        if perturbed.shape[-1] == 1:
            return perturbed.new_full((len(perturbed),), float("inf"))
        first, second = perturbed.topk(2, dim=-1).values.unbind(-1)
        return (first - second).amin(-1)


def draw_scale(model: VAR, raw: Tensor, k: int, options: Sampling, images: Tensor, noise: Tensor | None = None) -> Draw:
    """Draw scale ``k`` just as :meth:`litscale.models.var.VAR.sample` does.

    Args:
        model: whose logits they are.
        raw: ``[B, n, V]``, or ``[2 B, n, V]`` with the unconditional rows second where there is guidance.
        k: scale.
        options: how to draw.
        images: number of each image, int64 ``[B]``.
        noise: of this scale, where it is known already.
    """
    full = replace(options, top_k=0, top_p=0.0).logits(raw, model.progress(k))
    logits = keep_likely(full, options.top_k, options.top_p)
    if noise is None:
        noise = options.noise(images, k, logits.shape[1], logits.shape[2])
        assert noise is not None  # it is none for greedy sampling only
    return Draw(full, logits, noise, draw(logits, noise))


@dataclass
class Stream:
    """One network, and the scales that it has read of some images.

    Attributes:
        model: the network.
        condition: of the images' classes, and of no class below them where there is guidance.
        cache: keys and values of the scales read.
        copies: rows for each image: 2 with guidance, 1 without.
    """

    model: VAR
    condition: Condition
    cache: Cache
    copies: int

    @classmethod
    def open(cls, model: VAR, labels: Tensor, guided: bool) -> Stream:
        """Nothing read yet, for classes int64 ``[B]``.

        Raises:
            ValueError: labels out of range.
        """
        rows = torch.cat([labels, torch.full_like(labels, -1)]) if guided else labels
        return cls(model, model.condition(rows), model.new_cache(), 2 if guided else 1)

    @property
    def scale(self) -> int:
        """Number of scales read, and so the next to read."""
        return self.model.bounds.index(self.cache.length)

    def read(self, f_hats: Sequence[Tensor], mask: Tensor | None = None) -> list[Tensor]:
        """Read the next scales in one call.

        Args:
            f_hats: for each of them the accumulation of the scales before it, ``[B, dim, h, h]``.
            mask: as in :meth:`litscale.models.var.VAR.extend`.

        Returns:
            Raw logits of each scale, ``[copies * B, n, V]``.
        """
        first, bounds = self.scale, self.model.bounds
        quantizer = self.model.vqvae.quantizer
        parts = [quantizer.scale_input(f_hat, first + j) for j, f_hat in enumerate(f_hats) if first + j]
        inputs = torch.cat(parts, dim=1).repeat(self.copies, 1, 1) if parts else None
        raw = self.model.extend(inputs, self.condition, self.cache, first, mask)
        sizes = [bounds[k + 1] - bounds[k] for k in range(first, first + len(f_hats))]
        return list(raw.split(sizes, dim=1))

    def forget(self, scales: int) -> None:
        """Keep at most the first ``scales``."""
        if self.scale > scales:
            self.cache.truncate(self.model.bounds[scales])


@dataclass
class Group:
    """Images that have come equally far.

    Attributes:
        rows: their places in the batch, int64 ``[B]``.
        images: their numbers, which key their noise, int64 ``[B]``.
        tokens: int64 ``[B, n]`` of the finished scales.
        f_hats: accumulation before each finished scale and after the last, ``[B, dim, h, h]``.
        draft: what the draft has read; it may lag behind.
        target: what the target has read: exactly the finished scales.
    """

    rows: Tensor
    images: Tensor
    tokens: list[Tensor]
    f_hats: list[Tensor]
    draft: Stream
    target: Stream

    @property
    def finished(self) -> int:
        """Number of finished scales."""
        return len(self.tokens)

    def split(self, parts: Sequence[Tensor]) -> list[Group]:
        """Some of the images each, int64 indices into this group, which is used up."""
        return _assembled([self], parts)

    def joined(self, other: Group) -> Group:
        """The images of two groups that have come equally far, which are used up.

        The draft keeps what it has read of both.
        """
        together = torch.arange(len(self.rows) + len(other.rows), device=self.rows.device)
        return _assembled([self, other], [together])[0]


def _assembled(groups: Sequence[Group], parts: Sequence[Tensor]) -> list[Group]:
    """New groups of the images of all groups, which are used up."""
    drafts = _assembled_streams([group.draft for group in groups], parts)
    targets = _assembled_streams([group.target for group in groups], parts)
    return [
        Group(
            _picked([group.rows for group in groups], rows),
            _picked([group.images for group in groups], rows),
            [_picked(tokens, rows) for tokens in zip(*(group.tokens for group in groups), strict=True)],
            [_picked(f_hats, rows) for f_hats in zip(*(group.f_hats for group in groups), strict=True)],
            draft,
            target,
        )
        for rows, draft, target in zip(parts, drafts, targets, strict=True)
    ]


def _assembled_streams(streams: Sequence[Stream], parts: Sequence[Tensor]) -> list[Stream]:
    """New streams of the images of all streams, as far as all have read; guidance's pairs stay paired.

    The caches go over layer by layer, so that memory holds them once, and one layer twice.
    """
    model, copies = streams[0].model, streams[0].copies
    pick = partial(_picked, copies=copies)
    conditions = [stream.condition for stream in streams]
    length = min(stream.cache.length for stream in streams)
    made = [
        Stream(
            model,
            Condition(
                pick([condition.embedding for condition in conditions], rows),
                [pick(blocks, rows) for blocks in zip(*(condition.blocks for condition in conditions), strict=True)],
                pick([condition.head for condition in conditions], rows),
            ),
            model.new_cache(),
            copies,
        )
        for rows in parts
    ]
    if not length:
        return made
    for i in range(len(made[0].cache.layers)):
        held = [stream.cache.layers.pop(0).held() for stream in streams]
        for rows, stream in zip(parts, made, strict=True):
            keys, values = (pick([tensor[:, :, :length] for tensor in side], rows) for side in zip(*held, strict=True))
            stream.cache.layers[i].append(keys, values)
    return made


def _picked(tensors: Iterable[Tensor], rows: Tensor, copies: int = 1) -> Tensor:
    """Rows of all tensors joined, where each tensor has ``copies`` of all its rows; the copies stay apart."""
    halves = zip(*(tensor.chunk(copies) for tensor in tensors), strict=True)
    return torch.cat([torch.cat(half).index_select(0, rows) for half in halves])
