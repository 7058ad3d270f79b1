"""One network reading scale after scale of a batch of images.

Dimensions: B images, S scales, n tokens of a scale, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from litscale.models.var.cache import Cache, Condition
from litscale.models.var.flops import pass_flops
from litscale.models.var.generation_options import VARGeneration
from litscale.models.var.pruning import PrunedPass
from litscale.models.var.transformer import VAR


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of a network over one or several scales.

    Attributes:
        role: ``draft`` or ``target``.
        first: first scale that is read.
        scales: number of scales.
        images: number of images.
        tokens: number of tokens computed for one image, where the unconditional rows of guidance count, too.
        flops: floating-point operations for one image, see :func:`litscale.models.var.flops.pass_flops`.
    """

    role: str
    first: int
    scales: int
    images: int
    tokens: int
    flops: int


@dataclass(kw_only=True)
class NetworkState:
    """One network, and the scales that it has read of some images.

    Attributes:
        model: the network.
        options: how tokens are drawn, which says what scales are guided.
        condition: modulation by the images' classes, with guidance followed by that without class.
        cache: keys and values of the scales read.
        copies: rows for each image: 2 with guidance, 1 without.
        role: ``draft`` or ``target``, for the record.
        passes: the record, to which each pass is appended.
        features: outputs of the blocks' branches for the last scale read, from which pruned tokens are restored.
    """

    model: VAR
    options: VARGeneration
    condition: Condition
    cache: Cache
    copies: int
    role: str = "target"
    passes: list[Pass] = field(default_factory=list)
    features: dict[object, Tensor] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        model: VAR,
        labels: Tensor,
        options: VARGeneration,
        role: str = "target",
        passes: list[Pass] | None = None,
    ) -> NetworkState:
        """Open a state that has read nothing yet, for classes int64 ``[B]``.

        Raises:
            ValueError: labels out of range, or options that do not fit the number of scales.
        """
        options.check(model.scales)
        guided = options.at(0).cfg > 0
        rows = torch.cat([labels, torch.full_like(labels, -1)]) if guided else labels
        record = [] if passes is None else passes
        return cls(
            model=model,
            options=options,
            condition=model.condition(rows),
            cache=model.new_cache(),
            copies=2 if guided else 1,
            role=role,
            passes=record,
        )

    @property
    def scale(self) -> int:
        """Number of scales read, which is also the number of the next scale."""
        return self._bounds().index(self.cache.length)

    def read(self, f_hats: Sequence[Tensor], mask: Tensor | None = None) -> list[Tensor]:
        """Read the next scales in one pass.

        If the first of them is not guided, no unconditional rows are computed.

        Args:
            f_hats: for each scale to read, the accumulation of the scales before it, ``[B, dim, h, h]``.
            mask: as in :meth:`litscale.models.var.VAR.extend`.

        Returns:
            Raw logits of each scale, ``[2 B, n, V]`` where it is guided, else ``[B, n, V]``.
        """
        # 1. the input of each scale, for as many rows as the first scale needs
        first, images = self.scale, len(f_hats[0])
        sides = self.model.patch_nums[first : first + len(f_hats)]
        guided = [self.copies == 2 and self.options.at(first + j).cfg > 0 for j in range(len(f_hats))]
        copies = 2 if guided[0] else 1
        quantizer = self.model.vqvae.quantizer
        parts = [quantizer.scale_input(f_hat, first + j) for j, f_hat in enumerate(f_hats) if first + j]
        inputs = torch.cat(parts, dim=1).repeat(copies, 1, 1) if parts else None
        # 2. the pass, and its record
        sizes = [side**2 for side in sides]
        counts = self.options.counts([side**2 for side in self.model.patch_nums])[first : first + len(f_hats)]
        pruned = None if self.options.prune is None else PrunedPass(sides, counts, self.features)
        flops = copies * pass_flops(self.model, first, sizes, counts, self.cache.length)
        condition = self.condition.leading(copies * images)
        raw = self.model.extend(inputs, condition, self.cache, first, mask=mask, pruned=pruned)
        self.passes.append(
            Pass(
                role=self.role, first=first, scales=len(f_hats), images=images, tokens=copies * sum(counts), flops=flops
            )
        )
        # 3. the logits of each scale
        return [part if kept else part[:images] for part, kept in zip(raw.split(sizes, dim=1), guided, strict=True)]

    def settle(self, scale: int) -> None:
        """Free the unconditional rows if ``scale``, the next one, is not guided.

        Call it when this network will not draw any scale before ``scale`` again.
        """
        if self.copies == 2 and not self.options.at(scale).cfg:
            images = len(self.condition.embedding) // 2
            self.condition = self.condition.leading(images)
            self.cache.keep_leading(images)
            self.copies = 1

    def rollback(self, scales: int) -> None:
        """Forget all scales that were read after the first ``scales``."""
        if self.scale > scales:
            self.cache.truncate(self._bounds()[scales])

    def _bounds(self) -> list[int]:
        """Return the number of cached tokens before each scale, and last that of all scales."""
        counts = self.options.counts([side**2 for side in self.model.patch_nums])
        return [0, *accumulate(counts)]
