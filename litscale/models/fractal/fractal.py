"""The fractal recursion: each level's patches are the next level's canvases, down to single cells.

Dimensions: B canvases, R rows (patches) of a level, N patches of a row, C channels, K conditions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from litscale.models.codec import Codec, SymbolFeatures
from litscale.models.fractal.canvas import SCANS, grid_of, patchify
from litscale.models.fractal.columns import Preceding, first_columns, one_after_the_other
from litscale.models.fractal.generator import POSITIONS, GeneratorConfig
from litscale.models.fractal.head import CategoricalHead
from litscale.models.fractal.level import GENERATORS, Level
from litscale.models.fractal.masking import Masking, SharedMasking
from litscale.models.fractal.network import CanvasNetwork
from litscale.models.fractal.options import check_heads, check_lengths, check_name, initialise, per_level
from litscale.models.fractal.terms import FractalOutput, LossTerms
from litscale.models.keyed import canvas_keys, numbers
from litscale.models.labels import check_labels
from litscale.models.layers.blocks import StackConfig
from litscale.models.modes import evaluating


class Fractal(CanvasNetwork):
    """Hierarchical generator of symbol canvases (FractalGen, arXiv 2502.17437), levels mixed freely.

    Level l cuts a canvas of ``sizes[l]`` into patches of ``sizes[l + 1]``; ``sizes[0]`` is the whole canvas and the
    last size is the single cell, which the leaf predicts. ``widths``, ``blocks`` and ``heads`` have one entry per level
    and a last one for the leaf, like ``sizes``; ``generators`` has one per level.

    Args:
        sizes: (pitch, time) or (height, width) of the canvas, of each level's patches, and last [1, 1].
        generators: ``ar`` or ``mar`` for each level.
        widths: channels of each level and of the leaf.
        blocks: transformer blocks of each level and of the leaf.
        heads: attention heads of each level and of the leaf.
        codec: what symbols mean: ``rgb``, ``gray``, ``binary``, ``velocity`` or ``onset_hold``.
        velocity_bins: velocity bins of the piano-roll codecs, 1..127.
        num_classes: number of class labels; 0 for a model without classes.
        label_drop: probability that a label is replaced by "no class" in training, for classifier-free guidance.
        root_conditions: how often the class embedding is repeated as a condition of the first level.
        scan: order of the patches of AR levels, ``row_major`` or ``column_major`` (time first on rolls); one for all or
            one per level.
        positions: ``learned``, ``rope`` or ``both``; one for all or one per level.
        guiding: predict a guiding value (mean colour, or density of a roll's patch) for each patch of every level but
            the first, as that level's own loss and condition.
        guide_width: channels of the guiding value's predictor.
        guide_blocks: transformer blocks of the guiding value's predictor.
        guide_heads: attention heads of the guiding value's predictor.
        channel_weights: weights of the channels in the training loss; equal by default.
        mask_mean: mean of the truncated normal that gives MAR's share of hidden patches in training.
        mask_std: its standard deviation.
        attn_dropout: dropout of the attention weights of MAR levels. AR levels, the leaf and the predictors of guiding
            values have none, as in the published code.
        proj_dropout: dropout after attention and feed-forward, of MAR and AR levels.
        periods: lengths in columns, such as those of beat and bar. The first level gets the phase of each patch in
            them, counted from the start of the piece. By default there are none.
        preceding_columns: number of columns before a patch of the first level that the levels below read cell by cell,
            each patch in its own rows; 0 for none. The first level, which must be AR, sees all earlier columns
            anyway, but passes on only one state of them.
        preceding_margin: number of rows above and below its own that each patch reads of these columns.
        preceding_average: number of columns over which the levels below also read the average of each of these rows,
            such as how often a pitch was heard lately; 0 for none. Choose at most half of a window, since sampling
            moves windows on by half.
        zero_prefix_rope: set the condition tokens' queries and keys in AR levels to zero, as the published models do.
        grad_checkpointing: recompute activations in the backward pass to save memory.

    Raises:
        ValueError: lists of unequal length, an unknown name, sizes that do not divide each other, or heads that do not
            divide a width.
    """

    channel_weights: Tensor | None

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        generators: Sequence[str],
        widths: Sequence[int],
        blocks: Sequence[int],
        heads: Sequence[int],
        codec: str = "onset_hold",
        velocity_bins: int = 127,
        num_classes: int = 0,
        label_drop: float = 0.1,
        root_conditions: int = 1,
        scan: str | Sequence[str] = "row_major",
        positions: str | Sequence[str] = "both",
        guiding: bool = False,
        guide_width: int = 128,
        guide_blocks: int = 3,
        guide_heads: int = 4,
        channel_weights: Sequence[float] | None = None,
        mask_mean: float = 1.0,
        mask_std: float = 0.25,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
        periods: Sequence[int] = (),
        preceding_columns: int = 0,
        preceding_margin: int = 0,
        preceding_average: int = 0,
        zero_prefix_rope: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        # 1. check the options
        depth = len(generators)
        check_lengths(depth, sizes=sizes, widths=widths, blocks=blocks, heads=heads)
        scans: list[str] = per_level("scan", scan, depth)
        kinds: list[str] = per_level("positions", positions, depth)
        for option, names, choices in (
            ("generators", generators, tuple(GENERATORS)),
            ("scan", scans, SCANS),
            ("positions", kinds, POSITIONS),
        ):
            for name in names:
                check_name(option, name, choices)
        for i in range(depth + 1):
            rotary = i < depth and kinds[i] != "learned"
            check_heads((f"widths[{i}]", widths[i]), (f"heads[{i}]", heads[i]), rotary)
        if guiding:
            check_heads(("guide_width", guide_width), ("guide_heads", guide_heads), rotary=False)
        if tuple(sizes[-1]) != (1, 1):
            raise ValueError(f"the last of sizes must be [1, 1], the leaf's single cell, not {list(sizes[-1])}")
        if min([*periods, 1]) < 1:
            raise ValueError(f"periods must be at least 1, not {list(periods)}")
        # 2. symbols and classes
        super().__init__(Codec(codec, velocity_bins), sizes, num_classes, periods)
        self.preceding = Preceding(self.sizes[1], preceding_columns, preceding_margin, preceding_average)
        self.preceding.check(generators[0], scans[0], grid_of(self.sizes[0], self.sizes[1]))
        self.features = SymbolFeatures(self.codec)
        self.label_drop = label_drop
        self.root_conditions = root_conditions
        self.mask_mean, self.mask_std = mask_mean, mask_std
        weights = None if channel_weights is None else torch.tensor(channel_weights, dtype=torch.float32)
        channels = self.codec.channels
        if weights is not None and len(weights) != channels:
            raise ValueError(f"channel_weights needs {channels} numbers for codec {codec!r}")
        self.register_buffer("channel_weights", weights, persistent=False)
        self.no_class = nn.Parameter(torch.empty(1, widths[0]))
        self.class_emb = nn.Embedding(num_classes, widths[0]) if num_classes else None
        # 3. the levels, each of which hands its conditions down to the next
        guide_stack = StackConfig(guide_width, guide_blocks, guide_heads, grad_checkpointing=grad_checkpointing)
        levels = nn.ModuleList()
        conditions, condition_width = root_conditions, widths[0]
        for i in range(depth):
            canvas, patch = self.sizes[i], self.sizes[i + 1]
            before = (patch[0] + 2 * preceding_margin) * self.preceding.shown if i else 0
            guided = guiding and i > 0
            guide_head = None
            if guided:
                alphabet = self.features.guide_alphabet(canvas[0] * canvas[1])
                guide_head = CategoricalHead(guide_stack, condition_width, channels, alphabet)
            config = GeneratorConfig(
                patch_features=self.features.count * patch[0] * patch[1],
                grid=grid_of(canvas, patch),
                stack=StackConfig(
                    widths[i],
                    blocks[i],
                    heads[i],
                    attn_dropout=attn_dropout,
                    proj_dropout=proj_dropout,
                    grad_checkpointing=grad_checkpointing,
                ),
                conditions=conditions,
                condition_width=condition_width,
                guide_channels=channels if guided else 0,
                positions=kinds[i],
                scan=scans[i],
                zero_prefix_rope=zero_prefix_rope,
                lone=i + 1 == depth,
                periods=() if i else self.periods,
                before_features=self.features.count * before,
            )
            generator = GENERATORS[generators[i]](config)
            levels.append(Level(patch, generator, guide_head))
            conditions, condition_width = generator.conditions_out, widths[i]
        self.levels = cast("list[Level]", levels)  # typed, which a ModuleList is not
        # 4. the leaf
        leaf = StackConfig(widths[-1], blocks[-1], heads[-1], grad_checkpointing=grad_checkpointing)
        self.leaf = CategoricalHead(leaf, condition_width, channels, self.codec.alphabet)
        initialise(self)

    @property
    def exact_likelihood(self) -> bool:
        """Whether :meth:`nll_of_passes` is exact; with a MAR level it is a bound that varies from pass to pass."""
        return all(level.generator.causal for level in self.levels)

    def parameters_by_level(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of ``level_<i>`` (the first with the class embeddings) and of the ``leaf``."""
        groups = {f"level_{i}": list(level.parameters()) for i, level in enumerate(self.levels)}
        groups["level_0"] += [self.no_class, *(self.class_emb.parameters() if self.class_emb else [])]
        return groups | {"leaf": list(self.leaf.parameters())}

    def forward(
        self,
        canvas: Tensor,
        label: Tensor | None = None,
        with_entropy: bool = False,
        *,
        start: Tensor | None = None,
        teacher: Fractal | None = None,
        data_weight: float = 0.0,
    ) -> FractalOutput:
        """Compute the training loss, the mean cross-entropy in nats per symbol, plus that of guiding values.

        With a teacher, the share ``1 - data_weight`` of the loss is the divergence KL(teacher || model) of the
        distributions of the same symbols (arXiv 1503.02531): both networks see the same canvases, labels and masks.

        Args:
            canvas: symbols, uint8 ``[B, C, H, W]``.
            label: int64 ``[B]``, -1 for no class; none for a batch without classes. Dropped at random in training.
            with_entropy: also measure the entropy of the predictions.
            start: number of each canvas' first column within its piece, int64 ``[B]``, for ``periods``; 0 without.
            teacher: a network that fits, see :func:`litscale.models.fractal.compatibility.check_teacher`; it is used as
                it is, so switch it to evaluation.
            data_weight: with a teacher, the share of the cross-entropy in the loss, in 0..1.

        Raises:
            ValueError: a canvas or label that does not fit the model.
        """
        # 1. draw what is hidden, labels and patches
        if label is not None and self.training:
            dropped = torch.rand(len(label), device=label.device, dtype=torch.float32) < self.label_drop
            label = label.masked_fill(dropped, -1)
        masking = Masking("training", self.mask_mean, self.mask_std)
        # 2. what a teacher says of it
        taught = None
        if teacher is not None:
            masking = shared = SharedMasking(masking)
            with torch.no_grad():
                told = LossTerms(keep_logits=True)
                teacher._collect(canvas, teacher.root(canvas, label), shared, told, start)
            taught = told.logits
            shared.rewind()
        # 3. what this network says
        terms = LossTerms(with_entropy, teacher=taught)
        self._collect(canvas, self.root(canvas, label), masking, terms, start)
        return terms.output(self.channel_weights if self.training else None, data_weight)

    @torch.no_grad()
    def nll_of_passes(
        self,
        canvas: Tensor,
        label: Tensor | None = None,
        passes: int = 1,
        *,
        seed: int | None = None,
        start: Tensor | None = None,
        masking: Callable[..., Masking] | None = None,
    ) -> Tensor:
        """Compute the negative log-likelihood in nats per canvas, without dropout.

        If all levels are AR, it is exact, and all passes are equal. With MAR levels it is an unbiased estimate of the
        mean over generation orders, an upper bound on the exact value (order-agnostic bound, arXiv 2110.02037).
        Guiding values count as symbols of their own, which also makes it an upper bound for the canvas.

        Args:
            canvas: symbols, uint8 ``[B, C, H, W]``.
            label: int64 ``[B]``, -1 or none for no class.
            passes: number of random passes.
            seed: with it, a canvas has the same values in every batch and every process: what MAR levels hide depends
                on the seed and the canvas alone. Without it, torch's generator decides.
            start: as in :meth:`forward`.
            masking: makes the masks of MAR levels, by default those for the likelihood. `StepMasking` with the steps of
                a sampler gives the likelihood of the canvases that this sampler draws.

        Returns:
            float32 ``[passes, B]``.
        """
        terms = self._passes(canvas, label, passes=passes, seed=seed, start=start, masking=masking)
        return torch.stack([of_pass.nats_per_canvas(len(canvas)) for of_pass in terms])

    @torch.no_grad()
    def nll_of_columns(
        self,
        canvas: Tensor,
        label: Tensor | None = None,
        passes: int = 1,
        *,
        seed: int | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Compute the negative log-likelihood of each column given those before it, in nats, without dropout.

        The arguments are those of :meth:`nll_of_passes`.

        Returns:
            float64 ``[passes, B, W]``.

        Raises:
            ValueError: the network does not predict column after column.
        """
        if not one_after_the_other(self.sizes, [level.generator for level in self.levels]):
            raise ValueError(
                "the likelihood of a column given those before it, for evaluation.stride, needs AR levels that go "
                "through time first (scan column_major, with patches of one column below several rows of patches): "
                "set evaluation.stride to null"
            )
        terms = self._passes(canvas, label, passes=passes, seed=seed, start=start)
        return torch.stack([of_pass.nats_per_column(len(canvas)) for of_pass in terms])

    def _passes(
        self,
        canvas: Tensor,
        label: Tensor | None,
        *,
        passes: int,
        seed: int | None,
        start: Tensor | None,
        masking: Callable[..., Masking] | None = None,
    ) -> Iterator[LossTerms]:
        """Yield the cross-entropies of each teacher-forced pass; the arguments are those of :meth:`nll_of_passes`."""
        masking = partial(Masking, "likelihood") if masking is None else masking
        if seed is None:
            keys = torch.randint(2**62, (len(canvas),), device=canvas.device)
        else:
            keys = canvas_keys(canvas, seed)
        of_passes = numbers(keys, passes)  # [B, passes]
        with evaluating(self):
            for i in range(passes):
                terms = LossTerms()
                masks = masking(stratum=(i, passes), keys=of_passes[:, i])
                self._collect(canvas, self.root(canvas, label), masks, terms, start)
                yield terms

    def root(self, canvas: Tensor, label: Tensor | None) -> Tensor:
        """Check the batch and return the conditions of the first level, ``[B, root_conditions, D]``.

        Raises:
            ValueError: channels, size or labels do not fit the model; the range of labels is checked only on the CPU.
        """
        if canvas.ndim != 4 or canvas.shape[1] != self.codec.channels:
            raise ValueError(
                f"a canvas of codec {self.codec.name!r} is [B, {self.codec.channels}, H, W], not {list(canvas.shape)}"
            )
        first = self.levels[0]
        first.generator.check_grid(grid_of((canvas.shape[2], canvas.shape[3]), first.patch))
        nobody = self.no_class.expand(len(canvas), -1)
        embedded = nobody
        if label is not None:
            if self.class_emb is None:
                raise ValueError("labels were given to a model without classes: set num_classes")
            check_labels(label, self.num_classes)
            embedded = torch.where((label >= 0)[:, None], self.class_emb(label.clamp(min=0)), nobody)
        return embedded[:, None].expand(-1, self.root_conditions, -1)

    def local(self, depth: int, canvas: Tensor, before: Tensor | None, start: Tensor | None) -> Tensor | None:
        """Return the local conditioning of a level's patches.

        Args:
            depth: the level.
            canvas: symbols ``[R, C, H, W]``.
            before: preceding columns of each patch, ``[R, N, F, h + 2 m, n]``, on levels below the first, or None.
            start: as in :meth:`forward`, for the first level.

        Returns:
            ``[R, N, D]``, or None.
        """
        generator = self.levels[depth].generator
        if depth == 0:
            return generator.phases(first_columns(canvas, self.levels[0].patch, start)) if self.periods else None
        return None if before is None else generator.preceded(before.flatten(2))

    def _collect(
        self,
        canvas: Tensor,
        conditions: Tensor,
        masking: Masking,
        terms: LossTerms,
        start: Tensor | None = None,
    ) -> None:
        """Run one teacher-forced pass, level by level, and add every cross-entropy to ``terms``."""
        weight = torch.ones(len(canvas), device=canvas.device, dtype=torch.float32)
        terms.columns = canvas.shape[3]
        owner = torch.arange(0, len(canvas) * canvas.shape[3], canvas.shape[3], device=canvas.device)
        before = None
        for i, level in enumerate(self.levels):
            guide = None
            if level.guide_head is not None:
                value, guide = self.features.guide(canvas)
                if masking.kind == "likelihood":
                    guide = self.features.guide_features(value, canvas.shape[2] * canvas.shape[3])
                nats, logits = level.guide_head(value, conditions)
                terms.add(f"level_{i}", nats, weight, owner, logits)
            grid = grid_of((canvas.shape[2], canvas.shape[3]), level.patch)
            patches = patchify(canvas, level.patch)
            columns = torch.arange(0, canvas.shape[3], level.patch[1], device=canvas.device).repeat(grid[0])
            features = self.features.of_patches(patches)
            before = (
                self.preceding.below(before, level.patch, grid) if i else self.preceding.of_all(canvas, self.features)
            )
            local = self.local(i, canvas, before, start)
            if level.generator.causal:
                masking.descend(patches.shape[1])
                handed = level.generator(features, conditions, grid, guide, local)
                before = None if before is None else before.flatten(0, 1)
                canvas, conditions = patches.flatten(0, 1), handed.flatten(0, 1)
                weight = weight.repeat_interleave(patches.shape[1])
                owner = (owner[:, None] + columns).flatten()
            else:
                mask, factor, total = masking(len(patches), patches.shape[1], canvas.device)
                handed = level.generator(features, conditions, grid, guide, local, mask=mask)
                # index_select, because the gradient of x[row, index] is many times slower on a CPU
                hidden = torch.nonzero_static(mask.flatten(), size=total)[:, 0]
                masking.descend(patches.shape[1], hidden)
                canvas = patches.flatten(0, 1).index_select(0, hidden)
                before = None if before is None else before.flatten(0, 1).index_select(0, hidden)
                conditions = handed.flatten(0, 1).index_select(0, hidden)
                row = hidden // mask.shape[1]
                weight, owner = (weight * factor)[row], owner[row] + columns[hidden % mask.shape[1]]
                terms.mask_fractions[f"level_{i}"] = mask.float().mean()
        nats, logits = self.leaf(canvas.flatten(1).long(), conditions)
        terms.add("leaf", nats, weight, owner, logits)
