"""Speculative decoding of VAR: evaluation, generation, and distillation of the draft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from datamodules.base import data_of
from lit_models.batches import Batch, StepOutput
from lit_models.generating import GeneratingModule
from lit_models.optimization import Optimization
from lit_models.sampling_threads import checked_threads, limited_threads
from lit_models.speculative.comparison import Comparison, compare
from lit_models.speculative.distillation import divergence, teacher_forced, teacher_tokens
from lit_models.token_metrics import by_scale, trained_tokens
from lit_models.tokenizer.data_checks import check_cache, check_canvas
from lit_models.tokenizer.encoding import codec_of, count_tokens, labels_of, tokens_of
from lit_models.tokenizer.weights import packed_tokenizer, unpack_tokenizer
from lit_models.transformer_files import load_networks, save_as_lit_var
from litscale.metrics.mean import Mean
from litscale.models.keyed import host_random
from litscale.models.sdvar import Decoded, Decoder, DecoderFactory, Speculative, TargetOnly
from litscale.models.sdvar.decoders import check_options
from litscale.models.var import VAR, VQVAE, VARGeneration

GENERATION = VARGeneration()


class LitSDVAR(GeneratingModule):
    """Generates the images of a large VAR, the target, with the help of a small one, the draft; distils the draft.

    ``validate`` and ``test`` decode the labels of the data, and compare the decoder with the target alone on the same
    labels and noise; `callbacks.TargetCalls` logs the comparison. ``predict`` generates with the decoder.

    ``fit`` trains the draft by distillation for speculative decoding (arXiv 2310.08461). It minimises the
    teacher-forced KL(target || draft) of the distributions that tokens are drawn from, guidance and temperature
    included, on samples of the target and on the tokens of the data. The score to watch is
    ``val/accepted_scales_per_call``. At the end, ``draft.ckpt`` in the run folder holds the draft as a checkpoint of
    `LitVAR`.

    Both networks use one tokenizer. Checkpoints hold all three, so that evaluation needs a config and a checkpoint
    alone; the files below are read unless a checkpoint is given.

    Args:
        vqvae: The tokenizer.
        draft: The small network, whose tokenizer is filled in.
        target: The large network, whose tokenizer is filled in.
        decoder: The class of the decoder with its options: `Speculative`, `CollaborativeDecoding`, `Refine`,
            `TargetOnly`, `DraftOnly`, or the class_path of your own.
        generation: Options of generation for both networks.
        optimization: Learning rate, schedule and weight decay.
        draft_checkpoint: File with the weights of the draft: a checkpoint of LitVAR or LitSDVAR, or an official file;
            null leaves them as they are.
        target_checkpoint: File with the weights of the target, of the same kinds.
        tokenizer_checkpoint: File with the weights of the tokenizer: a checkpoint of LitVQVAE, or an official file. It
            is needed with official files of the networks, which do not hold the tokenizer.
        teacher_share: Fraction of the images of a training batch, in 0..1, for whose labels the target draws the
            tokens; the other images keep the tokens of the data.
        scales: The scales on which the draft is trained, ``[first, end]`` without ``end``: the draft of `Refine` is
            trained on the late ones, given the earlier scales of the target or of the data. Null trains all.
        fit_images: Number of images that each device decodes in a validation of ``fit``; other stages decode all
            labels.
        seed: Seed of the noise in evaluation.
        codec: Meaning of the channels of the tokenizer: rgb, gray, binary, velocity or onset_hold. By default it is rgb
            for three channels and gray for one.
        velocity_bins: Number of velocity bins of the data, for velocity and onset_hold.
        sampling_threads: Number of CPU threads for generation and comparison; null takes one for targets narrower than
            1024, and torch's number for others. Training keeps torch's number.

    Raises:
        ValueError: the networks do not fit together, or an option is out of range.
    """

    frequencies: Tensor
    scores: Mapping[str, Mapping[str, Mean]]
    weight_options = ("draft_checkpoint", "target_checkpoint")

    def __init__(
        self,
        vqvae: VQVAE,
        draft: Callable[[VQVAE], VAR],
        target: Callable[[VQVAE], VAR],
        decoder: DecoderFactory = Speculative,
        generation: VARGeneration = GENERATION,
        optimization: Optimization = Optimization(),
        draft_checkpoint: str | None = None,
        target_checkpoint: str | None = None,
        tokenizer_checkpoint: str | None = None,
        teacher_share: float = 0.5,
        scales: tuple[int, int] | None = None,
        fit_images: int = 64,
        seed: int = 0,
        codec: str | None = None,
        velocity_bins: int = 127,
        sampling_threads: int | None = None,
    ) -> None:
        super().__init__()
        # 1. the options, and the two networks over one tokenizer
        if not 0 <= teacher_share <= 1:
            raise ValueError(f"teacher_share must be in 0..1, not {teacher_share}")
        if fit_images < 1:
            raise ValueError(f"fit_images must be at least 1, not {fit_images}")
        self.draft, self.target = draft(vqvae), target(vqvae).requires_grad_(False)
        self.trained_tokens = trained_tokens(self.draft, scales)
        if self.draft.num_classes != self.target.num_classes:
            raise ValueError(
                f"the draft has {self.draft.num_classes} classes, the target {self.target.num_classes}: make "
                "num_classes the same"
            )
        check_options(generation)
        generation.check(self.target.scales)
        self.generation, self.optimization = generation, optimization
        self.files = {
            "tokenizer_checkpoint": tokenizer_checkpoint,
            "target_checkpoint": target_checkpoint,
            "draft_checkpoint": draft_checkpoint,
        }
        self.teacher_share, self.fit_images, self.seed = teacher_share, fit_images, seed
        self.codec = codec_of(vqvae, codec, velocity_bins)
        self.sampling_threads = checked_threads(sampling_threads)
        # 2. what is known only later: whether the files are read, the decoder has run, how many images were counted
        self._loaded = False
        self._warm = False
        self._seen = 0
        # 3. the decoder, and what it is compared with
        self.decoder = decoder(draft=self.draft, target=self.target)
        self.target_only = TargetOnly(self.target)
        self.register_buffer("frequencies", torch.zeros(self.scales, vqvae.vocab, dtype=torch.long))
        # 4. scores of the distillation
        names = ("divergence", "overlap", "accepted_scales_per_call")
        scores = {stage: nn.ModuleDict({name: Mean() for name in names}) for stage in ("val", "test")}
        self.scores = cast("Mapping[str, Mapping[str, Mean]]", nn.ModuleDict(scores))

    def trained(self) -> list[nn.Module]:
        """Return the draft."""
        return [self.draft]

    def weight_files(self) -> dict[str, str]:
        """Return the files of draft, target and tokenizer, if those of draft and target are given."""
        given = {option: path for option, path in self.files.items() if path is not None}
        return given if set(self.weight_options) <= given.keys() else {}

    def label_classes(self) -> int:
        """Return the number of classes of the networks, 0 for none."""
        return self.target.num_classes

    @property
    def vqvae(self) -> VQVAE:
        """The tokenizer."""
        return self.target.vqvae

    @property
    def scales(self) -> int:
        """Number of scales."""
        return self.target.scales

    def described_generation(self) -> dict[str, Any]:
        """Return the options of generation and the name of the decoder."""
        return super().described_generation() | {"decoder": str(self.decoder)}

    def setup(self, stage: str) -> None:
        """Check the precision, and that the data fit the networks and the tokenizer.

        Raises:
            ValueError: the precision cannot train, or the classes or the canvases of the data do not fit.
        """
        super().setup(stage)
        check_canvas(self.vqvae, self.codec, data_of(self.trainer))

    def load_files(self) -> None:
        """Load the files of the networks and of the tokenizer, unless a checkpoint brought their weights.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file does not fit, or the networks were trained with different tokenizers.
        """
        if self._loaded:
            return
        load_networks({"target": self.target, "draft": self.draft}, self.files)
        self._loaded = True

    def on_fit_start(self) -> None:
        """Load the files, unless a checkpoint was loaded, and check that the tokenizer wrote the cache if there is one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file does not fit, or another tokenizer wrote the cache.
        """
        self.load_files()
        check_cache(self.vqvae, data_of(self.trainer))

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """Compute the divergence of the draft from the target for a batch.

        The report holds ``loss/scale_<k>``, in nats per token, and ``overlap/scale_<k>``, see
        :func:`lit_models.speculative.distillation.divergence`.
        """
        # 1. encode
        tokens = tokens_of(self.target, self.codec, batch)
        self.frequencies += self.trainer.strategy.reduce(self.vqvae.quantizer.count(tokens), reduce_op="sum")
        labels = labels_of(self.target, batch.get("label"), len(tokens[0]))
        # 2. let the target draw the tokens of a part of the images
        if count := round(self.teacher_share * len(labels)):
            drawn = teacher_tokens(
                self.target, labels[:count], self.generation.complete(), host_random().getrandbits(62)
            )
            tokens = [torch.cat([made, given[count:]]) for made, given in zip(drawn, tokens, strict=True)]
        # 3. compare the networks
        nats, overlap = self._divergence(labels, tokens)
        loss = self.finite(nats[:, self.trained_tokens].mean())
        self.log("train/loss", loss.detach(), sync_dist=True)
        report = {
            f"{name}/scale_{k}": part.detach().mean()
            for name, values in (("loss", nats), ("overlap", overlap))
            for k, part in enumerate(by_scale(self.target, values))
        }
        return {"loss": loss, "report": report}

    def batch_counts(self, batch: Batch) -> dict[str, int]:
        """Count the ``samples`` and ``tokens`` of a batch, and the ``cells`` if it has canvases."""
        return count_tokens(batch, self.target.length)

    def _divergence(self, labels: Tensor, tokens: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the divergence and the overlap at each token, ``[B, L]`` each.

        The draft draws as the options say. The target draws without what saves arithmetic, so that a draft without
        guidance on late scales learns to draw what guidance would have changed.
        """
        options = replace(self.generation, top_k=0, top_p=0.0)  # filters would make it infinite
        with torch.no_grad():
            target = teacher_forced(self.target, labels, tokens, options.complete())
        return divergence(target, teacher_forced(self.draft, labels, tokens, options))

    def on_validation_epoch_start(self) -> None:
        """Number the images of the epoch from 0."""
        self._seen = 0

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> Comparison | None:  # type: ignore[override]
        """Decode labels and log the scores ``val/...``; a validation of ``fit`` decodes only the first labels."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        return self._evaluate("val", batch, self.fit_images if fitting else None)

    def test_step(self, batch: Batch, batch_idx: int) -> Comparison | None:  # type: ignore[override]
        """Decode the labels of a batch, and log the scores ``test/...``."""
        return self._evaluate("test", batch, None)

    def _evaluate(self, prefix: str, batch: Batch, most: int | None) -> Comparison | None:
        tokens = tokens_of(self.target, self.codec, batch)
        labels = labels_of(self.target, batch.get("label"), len(tokens[0]))
        # 1. the divergence on the tokens of the data
        scores = self.scores[prefix]
        for name, values in zip(("divergence", "overlap"), self._divergence(labels, tokens), strict=True):
            scores[name].update(values)
        # 2. decode the labels that this stage has room for
        first, self._seen = self._seen, self._seen + len(labels)
        labels = labels[: None if most is None else max(most - first, 0)]
        comparison = None
        if len(labels):
            # Samplers distribute images over processes in turn.
            index = torch.arange(first, first + len(labels), device=self.device) * self.trainer.world_size
            comparison = self.compare(labels, index + self.trainer.global_rank, self.seed)
            report = comparison.report
            calls = report.target_calls
            scores["accepted_scales_per_call"].update(report.accepted_scales / max(calls, 1), weight=calls)
        # 3. log
        for name, metric in scores.items():
            shown = name == "accepted_scales_per_call"
            self.log(f"{prefix}/{name}", metric, prog_bar=shown, on_epoch=True, on_step=False, batch_size=1)
        return comparison

    def compare(self, labels: Tensor, index: Tensor, seed: int) -> Comparison:
        """Compare the decoder with the target alone, which saves nothing, on the same labels and noise.

        Before the first comparison both run once without being timed.

        Args:
            labels: int64 ``[B]``, -1 for no class.
            index: The number of each image, which keys its noise, int64 ``[B]``.
            seed: The seed of the noise.
        """
        runs = [(self.decoder, self.generation), (self.target_only, self.generation.complete())]
        for decoder, options in () if self._warm else runs:
            self.decode(decoder, options, labels, index, seed)
        self._warm = True
        made, alone = (self.decode(decoder, options, labels, index, seed) for decoder, options in runs)
        return compare(made, alone, self.codec)

    def decode(
        self,
        decoder: Decoder,
        options: VARGeneration,
        labels: Tensor,
        index: Tensor | None,
        seed: int | None,
        *,
        profile: bool = False,
    ) -> Decoded:
        """Decode labels to images with ``sampling_threads``; the same arguments give the same images in every run.

        Args:
            decoder: Any decoder of the networks.
            options: How tokens are drawn.
            labels: int64 ``[B]``, -1 for no class.
            index: The number of each image, which keys its noise, int64 ``[B]``; None for 0, 1, ...
            seed: The seed of the noise; None takes one from torch's generator.
            profile: Also time the parts on an accelerator, as `Decoder.decode` does.
        """
        if not decoder.lossless:
            decoder.reset()  # what it has learned from earlier batches would change the images
        with limited_threads(self.target, self.sampling_threads):
            return decoder.decode(labels, options, seed, image_index=index, profile=profile)

    def generate(
        self,
        label: Tensor | None = None,
        *,
        batch_size: int = 1,
        canvas: Tensor | None = None,
        known: Tensor | None = None,
        seed: int | None = None,
        index: Tensor | None = None,
        frames: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Generate canvases with the decoder of the module; arguments as in `GeneratingModule.generate`.

        A canvas only gives B, and no cell may be known. A frame is taken after each scale, with all cells finished.

        Raises:
            ValueError: a cell is known, or a label is out of range.
        """
        if known is not None and known.any():
            raise ValueError("the decoders make whole images and keep no known cells: inpaint with LitVAR")
        count = batch_size if canvas is None else len(canvas)
        labels = labels_of(self.target, label, count)
        made = self.decode(self.decoder, self.generation, labels, index, seed)
        if frames is not None:
            pictures = self.codec.to_symbols(self.vqvae.tokens_to_images(made.tokens, all_scales=True).flatten(0, 1))
            whole = torch.ones(pictures.shape, dtype=torch.bool).chunk(self.scales)
            frames += zip(pictures.cpu().chunk(self.scales), whole, strict=True)
        return self.codec.to_symbols(made.images.float() * 2 - 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the tokenizer in the checkpoint."""
        checkpoint["tokenizer"] = packed_tokenizer(self.vqvae)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the tokenizer that the networks were trained with from their checkpoint.

        Raises:
            ValueError: the checkpoint is not one of LitSDVAR, or its tokenizer is damaged or has another architecture.
        """
        if not any(name.startswith("target.") for name in checkpoint["state_dict"]):
            raise ValueError(
                "the checkpoint is not one of LitSDVAR: give checkpoints of LitVAR as draft_checkpoint and "
                "target_checkpoint of the model"
            )
        unpack_tokenizer(self.vqvae, checkpoint["tokenizer"], "the checkpoint")
        self._loaded = True

    def export_draft(self, path: str | Path) -> None:
        """Write the draft as a checkpoint of `LitVAR`.

        Raises:
            OSError: the file could not be written.
        """
        save_as_lit_var(path, self.draft, self.frequencies)

    def on_fit_end(self) -> None:
        """Write the draft to ``draft.ckpt`` in the run folder."""
        if self.trainer.is_global_zero:
            self.export_draft(Path(self.trainer.default_root_dir) / "draft.ckpt")
