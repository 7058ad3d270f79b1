"""Metrics of reconstructions: PSNR, SSIM, LPIPS, rFID, F1 of notes, and usage of the codebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from lit_models.tokenizer.codebook import CodeCounts, report
from litscale.metrics import FeatureStatistics, FrechetDistance
from litscale.metrics.features import checked_size, extract
from litscale.metrics.mean import Mean
from litscale.models.codec import Codec
from litscale.models.var import VQVAE, VQOutput


class ReconstructionMetrics(nn.Module):
    """The metrics of one stage, over all its canvases and all processes.

    - ``psnr``, in dB: that of the mean square error over all cells of all canvases, which is at most the mean PSNR of
      single images;
    - ``ssim``;
    - ``note_f1``, for rolls: the F1 score of sounding cells;
    - ``lpips``, if a perceptual network is given;
    - ``rfid``, if a feature extractor is given;
    - ``usage/scale_<k>`` and ``perplexity/scale_<k>``, see :mod:`lit_models.tokenizer.codebook`.

    Args:
        network: The tokenizer, which gives the size of the codebook.
        codec: The meaning of its channels.
        with_lpips: Whether :meth:`update` will be given a perceptual network.
        extractor: The feature extractor for rFID that :meth:`update` will be given, or None; see
            `litscale.metrics.features`.
    """

    metrics: Mapping[str, Metric]

    def __init__(self, network: VQVAE, codec: Codec, with_lpips: bool, extractor: nn.Module | None) -> None:
        super().__init__()
        self.codec = codec
        metrics: dict[str, Metric] = {"psnr": PeakSignalNoiseRatio(data_range=2.0)}
        metrics["ssim"] = StructuralSimilarityIndexMeasure(data_range=2.0)
        if not codec.is_image:
            metrics["note_f1"] = BinaryF1Score()
        if with_lpips:
            metrics["lpips"] = Mean()
        if extractor is not None:
            metrics["rfid"] = FrechetDistance(checked_size(extractor))
            self.real = FeatureStatistics(checked_size(extractor))
        self.metrics = cast("Mapping[str, Metric]", nn.ModuleDict(metrics))
        self.codes = CodeCounts(len(network.patch_nums), network.vocab)

    @torch.no_grad()
    def update(
        self, canvas: Tensor, real: Tensor, out: VQOutput, lpips: nn.Module | None, extractor: nn.Module | None
    ) -> None:
        """Update all metrics with a batch.

        Args:
            canvas: Symbols, uint8 ``[B, C, H, W]``.
            real: The images of these symbols, as the tokenizer reads them: float ``[B, P, H, W]`` in -1..1.
            out: The output of the tokenizer for them.
            lpips: The perceptual network, if there is one.
            extractor: The feature extractor, if there is one.
        """
        made = out.images.float().clamp(-1, 1)
        self.metrics["psnr"].update(made, real)
        self.metrics["ssim"].update(made, real)
        self.codes.update(out.counts)
        symbols = self.codec.to_symbols(made)
        if "note_f1" in self.metrics:
            self.metrics["note_f1"].update((symbols > 0).long(), (canvas > 0).long())
        if lpips is not None:
            self.metrics["lpips"].update(lpips(made, real))
        if extractor is not None:
            self.metrics["rfid"].update(extract(extractor, symbols)[0])
            self.real.update(extract(extractor, canvas)[0])

    def compute(self) -> dict[str, Tensor]:
        """Return all metrics by name, as float32 scalars that are the same on every process."""
        if "rfid" in self.metrics:
            cast("FrechetDistance", self.metrics["rfid"]).reference = self.real.compute()
        scores = {name: metric.compute().float() for name, metric in self.metrics.items()}
        return scores | report(self.codes.compute())

    def reset(self) -> None:
        """Reset all metrics."""
        for metric in self.modules():
            if isinstance(metric, Metric):
                metric.reset()
