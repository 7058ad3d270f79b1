"""Multi-scale residual quantiser (VAR, arXiv 2404.02905, algorithms 1 and 2).

Dimensions: B images, S scales, n tokens of a scale (its side squared), V vocabulary, L tokens of all scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional as F  # noqa: N812

from litscale.models.var.codebooks import ProjectedCodebook, entropy_loss, rotated
from litscale.models.var.scales import check_patch_nums, grow, phi_index, shrink

_WARM_UP = 100  # updates of single scales during which the usage average moves faster


@dataclass(kw_only=True)
class Quantized:
    """The result of quantising a batch of feature maps.

    Attributes:
        f_hat: sum of the scales' contributions ``[B, dim, h, h]``; its gradient passes straight to the features.
        codebook_loss: scalar, pulls codes (and phi) towards the features, mean over scales.
        commitment_loss: scalar, pulls features towards the codes, mean over scales, not yet weighed by beta.
        entropy_loss: scalar, mean over scales of :func:`~litscale.models.var.codebooks.entropy_loss`; None unless it is
            part of the loss.
        loss: ``codebook_loss + beta * commitment_loss``, and ``entropy * entropy_loss``.
        tokens: int64 ``[B, n]`` of each scale.
        counts: how often each code was used at each scale in this batch, int64 ``[S, V]``. Sum it over the processes
            before :meth:`Quantizer.record_hits`.
        queries: the vectors that each scale looked up in the codebook, ``[B, n, dim]``, without gradient; they are
            candidates for :meth:`Quantizer.restart`.
    """

    f_hat: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    entropy_loss: Tensor | None
    loss: Tensor
    tokens: list[Tensor]
    counts: Tensor
    queries: list[Tensor]


class Quantizer(nn.Module):
    """Encodes a feature map as token maps of growing size, each of the residual that the smaller ones leave.

    The codebook is shared by all scales. All arithmetic is in the codebook's dtype, also under autocast. The methods
    that generation uses change nothing in place, so that a rejected scale leaves no trace.

    Args:
        patch_nums: side of each scale's token map, increasing; the last is the side of the feature map.
        vocab: number of codes V.
        dim: channels of the features and codes.
        phis: number of 3x3 convolutions after the upsampling, spread evenly over the scales; 0 for one per scale.
        quant_resi: share of the convolution in its residual mix, ``(1 - |r|) h + |r| conv(h)``; 0 for none.
        beta: weight of the commitment loss.
        znorm: look up by cosine instead of distance.
        scale_dropout: probability that an image of a training batch is described by its leading scales only, their
            number drawn uniformly from 1..S; the other scales then enter neither ``f_hat`` nor the losses, so coarse
            scales learn to carry content (quantizer dropout of SoundStream, arXiv 2107.03312, with a probability as in
            arXiv 2306.06546).
        rotation: pass the gradient of ``f_hat`` to the features rotated instead of straight, see
            :func:`~litscale.models.var.codebooks.rotated`.
        simvq: make the codes by a learned linear map of frozen random vectors, see
            :class:`~litscale.models.var.codebooks.ProjectedCodebook`; they cannot be restarted.
        entropy: weight of the entropy loss in training, 0 for none.
        entropy_temperature: how soft its assignments are, see :func:`~litscale.models.var.codebooks.entropy_loss`.

    Raises:
        ValueError: ``patch_nums`` not increasing, ``scale_dropout`` outside 0..1, or another option out of range.
    """

    hits: Tensor
    hit_updates: Tensor

    def __init__(
        self,
        patch_nums: Sequence[int],
        vocab: int,
        dim: int,
        *,
        phis: int = 4,
        quant_resi: float = 0.5,
        beta: float = 0.25,
        znorm: bool = False,
        scale_dropout: float = 0.0,
        rotation: bool = False,
        simvq: bool = False,
        entropy: float = 0.0,
        entropy_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        # 1. check and keep the options
        self.patch_nums = check_patch_nums(patch_nums)
        if not 0 <= scale_dropout <= 1:
            raise ValueError(f"scale_dropout must be in 0..1, not {scale_dropout}")
        if entropy < 0 or entropy_temperature <= 0:
            raise ValueError(
                "entropy must not be negative and entropy_temperature must be above 0, not "
                f"{entropy} and {entropy_temperature}"
            )
        self.vocab, self.dim = vocab, dim
        self.beta, self.znorm, self.scale_dropout = beta, znorm, scale_dropout
        self.rotation, self.simvq = rotation, simvq
        self.entropy, self.entropy_temperature = entropy, entropy_temperature
        # 2. the convolutions that smooth each scale's map
        self.phi_share = abs(quant_resi) if abs(quant_resi) > 1e-6 else 0.0
        self.phi_count = phis
        convolutions = (phis or len(self.patch_nums)) if self.phi_share else 0
        self.phis = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(convolutions))
        used = {phi_index(k, len(self.patch_nums), phis) for k in range(len(self.patch_nums))}
        for i, phi in enumerate(self.phis):
            phi.requires_grad_(i in used)  # with few scales some serve none, and would never get a gradient
        # 3. the codes, and how often each was used
        self.codebook: nn.Embedding | ProjectedCodebook
        if simvq:
            self.codebook = ProjectedCodebook(vocab, dim)
        else:
            self.codebook = nn.Embedding(vocab, dim)
            nn.init.uniform_(self.codebook.weight, -1 / vocab, 1 / vocab)
        self.register_buffer("hits", torch.zeros(len(self.patch_nums), vocab, dtype=torch.float32))
        self.register_buffer("hit_updates", torch.zeros((), dtype=torch.long))

    def forward(self, f: Tensor) -> Quantized:
        """Quantise features ``[B, dim, h, h]`` for training.

        Raises:
            ValueError: the map's side is not the last of ``patch_nums``.
        """
        # 1. how many scales each image keeps
        f = f.to(self.codebook.weight.dtype)
        target = f.detach()
        f_hat = torch.zeros_like(target)
        kept = self._kept_scales(len(f), f.device)
        # 2. scale by scale: quantise the residual, add it up, compare the sum with the features
        tokens, queries, codebook_losses, commitment_losses, entropy_losses = [], [], [], [], []
        with_entropy = self.training and self.entropy > 0
        for k, (query, codes, h) in enumerate(self._walk(f if with_entropy else target, self.patch_nums)):
            keep = (kept > k).to(f.dtype)  # [B]
            f_hat = f_hat + h * keep[:, None, None, None]
            codebook_losses.append(((f_hat - target).square().mean((1, 2, 3)) * keep).mean())
            commitment_losses.append(((f_hat.detach() - f).square().mean((1, 2, 3)) * keep).mean())
            if with_entropy:
                entropy_losses.append(entropy_loss(self._distances(query.flatten(0, 1)), self.entropy_temperature))
            tokens.append(codes)
            queries.append(query.detach())
        # 3. mean losses, and the gradient of the features
        codebook_loss = torch.stack(codebook_losses).mean()
        commitment_loss = torch.stack(commitment_losses).mean()
        loss = codebook_loss + self.beta * commitment_loss
        mean_entropy_loss = None
        if with_entropy:
            mean_entropy_loss = torch.stack(entropy_losses).mean()
            loss = loss + self.entropy * mean_entropy_loss
        passed = rotated(f, f_hat.detach()) if self.rotation else f + (f_hat.detach() - target)
        counts = self.count(tokens)
        return Quantized(
            f_hat=passed,
            codebook_loss=codebook_loss,
            commitment_loss=commitment_loss,
            entropy_loss=mean_entropy_loss,
            loss=loss,
            tokens=tokens,
            counts=counts,
            queries=queries,
        )

    @torch.no_grad()
    def encode(self, f: Tensor, patch_nums: Sequence[int] | None = None) -> list[Tensor]:
        """Return the token ids of features.

        Args:
            f: ``[B, dim, h, h]``.
            patch_nums: other scales than the quantiser's own, ending at h.

        Returns:
            int64 ``[B, n]`` for each scale, in raster order.

        Raises:
            ValueError: ``patch_nums`` not increasing or not ending at h.
        """
        sides = self.patch_nums if patch_nums is None else check_patch_nums(patch_nums)
        return [tokens for _, tokens, _ in self._walk(f.to(self.codebook.weight.dtype), sides)]

    def start(self, batch: int) -> Tensor:
        """Return the accumulation that generation starts from: zeros ``[B, dim, h, h]``."""
        side = self.patch_nums[-1]
        return self.codebook.weight.new_zeros(batch, self.dim, side, side)

    def accumulate(self, f_hat: Tensor, tokens: Tensor, k: int) -> Tensor:
        """Add the contribution of scale ``k``'s tokens ``[B, n]`` to ``f_hat``, and return a new ``[B, dim, h, h]``."""
        return self.add(f_hat, self.codebook(tokens), k)

    def add(self, f_hat: Tensor, vectors: Tensor, k: int) -> Tensor:
        """Add the contribution of vectors ``[B, n, dim]`` (mixtures of codes) as :meth:`accumulate` does of tokens."""
        return f_hat + self._contribution(vectors, k, self.patch_nums)

    def scale_input(self, f_hat: Tensor, k: int) -> Tensor:
        """Return the transformer's input for scale ``k >= 1``: ``f_hat`` of the scales before, at this scale's size.

        Returns:
            ``[B, n, dim]``.
        """
        return shrink(f_hat, self.patch_nums[k]).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def teacher_input(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return the transformer's inputs for scales 1, 2, ... given the tokens of the scales before them.

        Args:
            tokens: int64 ``[B, n]`` of all scales, or of the leading ones.

        Returns:
            ``[B, L - n_0, dim]``; with fewer than S - 1 scales of tokens, the inputs up to the next scale.
        """
        known = tokens[: len(self.patch_nums) - 1]
        inputs = [self.scale_input(f_hat, k + 1) for k, f_hat in enumerate(self.f_hats(known))]
        return torch.cat([self.codebook.weight.new_zeros(len(tokens[0]), 0, self.dim), *inputs], dim=1)

    def f_hats(
        self, tokens: Sequence[Tensor], patch_nums: Sequence[int] | None = None, full_size: bool = True
    ) -> list[Tensor]:
        """Return the accumulation after each scale.

        Args:
            tokens: int64 ``[B, n]`` of the leading scales.
            patch_nums: the scales that they were encoded with, where these are not the quantiser's own.
            full_size: False works at each scale's own size and enlarges the sum from scale to scale; an experiment of
                the official code that training does not see.

        Returns:
            ``[B, dim, h, h]`` for each scale, or ``[B, dim, side, side]`` at the scales' own size.
        """
        sides = self.patch_nums if patch_nums is None else check_patch_nums(patch_nums)
        sums: list[Tensor] = []
        for k, codes in enumerate(tokens):
            h = self._contribution(self.codebook(codes), k, sides, full_size)
            sums.append(h + grow(sums[-1], h.shape[-1]) if sums else h)
        return sums

    def count(self, tokens: Sequence[Tensor]) -> Tensor:
        """Count how often each code is used at each scale, int64 ``[S, V]``."""
        codes = torch.cat([codes.flatten() + k * self.vocab for k, codes in enumerate(tokens)])
        # Not bincount, which reads the largest code on the host.
        counts = codes.new_zeros(len(tokens) * self.vocab).index_add_(0, codes, torch.ones_like(codes))
        return counts.view(-1, self.vocab)

    @torch.no_grad()
    def record_hits(self, counts: Tensor) -> None:
        """Update the running average of code usage, once per training step.

        The average starts as a copy of the first row. Later rows weigh 0.1, and 0.01 after the first hundred; each
        scale of a step counts as a row, as in the official code.

        Args:
            counts: ``[S, V]`` of :class:`Quantized`, summed over all processes.
        """
        scales = len(self.patch_nums)
        rows = self.hit_updates + torch.arange(scales, device=self.hits.device)[:, None]
        decay = torch.full_like(self.hits[:, :1], 0.99).masked_fill(rows < _WARM_UP, 0.9).masked_fill(rows == 0, 0.0)
        self.hits.copy_(decay * self.hits + (1 - decay) * counts)
        self.hit_updates += scales

    def usage(self, images: int) -> Tensor:
        """Return the percentage of codes in use at each scale, float ``[S]``.

        A code is in use if its running count is at least 8 % of the count that it would have if the tokens of the last
        scale used all codes equally often.

        Args:
            images: number of images of a training step, over all processes.
        """
        even = images * self.patch_nums[-1] ** 2 / self.vocab
        return (self.hits >= 0.08 * even).double().mean(1) * 100

    @torch.no_grad()
    def restart(self, dead: Tensor, vectors: Tensor) -> None:
        """Replace dead codes.

        Args:
            dead: which codes are dead, bool ``[V]``.
            vectors: new values for all codes, ``[V, dim]``, of which only those for dead codes are used; the same on
                all processes.

        Raises:
            ValueError: the shapes do not fit, or the codes are those of ``simvq``.
        """
        if self.simvq:
            raise ValueError("codes of simvq are a map of frozen vectors and cannot be restarted")
        if vectors.shape != (self.vocab, self.dim):
            raise ValueError(
                f"{self.vocab} codes need vectors of shape [{self.vocab}, {self.dim}], not {list(vectors.shape)}"
            )
        weight = self.codebook.weight
        whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
        whole = torch.where(dead[:, None], vectors.to(weight.dtype), whole)
        if isinstance(weight, DTensor):  # sharded
            whole = distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)
        weight.copy_(whole)

    def _kept_scales(self, batch: int, device: torch.device) -> Tensor:
        """Draw the number of leading scales that describe each image, int64 ``[B]``; all without scale dropout."""
        scales = len(self.patch_nums)
        kept = torch.full((batch,), scales, device=device)
        if not (self.training and self.scale_dropout):
            return kept
        fewer = torch.randint(1, scales + 1, (batch,), device=device)
        return torch.where(torch.rand(batch, device=device, dtype=torch.float32) < self.scale_dropout, fewer, kept)

    def _walk(self, f: Tensor, sides: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the queries ``[B, n, dim]``, tokens ``[B, n]`` and contribution ``[B, dim, h, h]`` of each scale."""
        check_patch_nums(sides, f.shape[-1])
        rest = f
        for k, side in enumerate(sides):
            query = shrink(rest, side).flatten(2).transpose(1, 2)
            tokens = self._nearest(query)
            h = self._contribution(self.codebook(tokens), k, sides)
            rest = rest - h.detach()
            yield query, tokens, h

    @torch.no_grad()
    def _nearest(self, query: Tensor) -> Tensor:
        """Find the codes nearest to ``[B, n, dim]``, int64 ``[B, n]``."""
        codes = self.codebook.weight
        rows = query.flatten(0, 1)
        with torch.autocast(query.device.type, enabled=False):
            if self.znorm:
                best = (F.normalize(rows, dim=-1) @ F.normalize(codes, dim=-1).t()).argmax(1)
            else:
                best = torch.addmm(codes.square().sum(1), rows, codes.t(), alpha=-2).argmin(1)
        return best.view(query.shape[:2])

    def _distances(self, rows: Tensor) -> Tensor:
        """Compute the squared distances ``[B n, V]`` of queries ``[B n, dim]`` to all codes.

        With ``znorm``, queries and codes are normalised to unit vectors first.
        """
        codes = self.codebook.weight
        with torch.autocast(rows.device.type, enabled=False):
            if self.znorm:
                rows, codes = F.normalize(rows, dim=-1), F.normalize(codes, dim=-1)
            return rows.square().sum(1, keepdim=True) + torch.addmm(codes.square().sum(1), rows, codes.t(), alpha=-2)

    def _contribution(self, vectors: Tensor, k: int, sides: Sequence[int], full_size: bool = True) -> Tensor:
        """Turn vectors ``[B, n, dim]`` of scale ``k`` into a map, enlarge it if ``full_size``, and apply phi to it."""
        with torch.autocast(vectors.device.type, enabled=False):
            h = vectors.transpose(1, 2).unflatten(2, (sides[k], sides[k]))
            if full_size:
                h = grow(h, sides[-1])
            if not self.phi_share:
                return h
            phi = self.phis[phi_index(k, len(sides), self.phi_count)]
            return (1 - self.phi_share) * h + self.phi_share * phi(h)
