"""How good reconstructions are: PSNR, SSIM, LPIPS, rFID, notes, and how the codebook is used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.classification import BinaryF1Score
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from lit_models.tokenizer.codebook import CodeCounts, report
from litscale.metrics import FeatureStatistics, FrechetDistance
from litscale.metrics.features import checked_size, extract
from litscale.metrics.mean import Mean
from litscale.models.codec import Codec
from litscale.models.var import VQVAE, VQOutput


class ReconstructionMetrics(nn.Module):
    """Metrics of one stage over all its canvases and all processes.

    ``psnr`` in dB, of the mean square error over all cells of all canvases (never above the mean of single images'
    values); ``ssim``; of rolls ``note_f1``, of which cells sound; with LPIPS ``lpips``; with an extractor ``rfid``;
    ``usage/scale_k`` and ``perplexity/scale_k`` (see :mod:`lit_models.tokenizer.codebook`).

    Args:
        network: the tokenizer, for the sizes of its codebook.
        codec: what its channels stand for.
        with_lpips: whether distances will be given.
        extractor: of features for rFID, or None; see `litscale.metrics.features`. It is kept by the caller.
    """

    def __init__(self, network: VQVAE, codec: Codec, with_lpips: bool, extractor: nn.Module | None) -> None:
        super().__init__()
        self.codec = codec
        metrics: dict[str, nn.Module] = {"psnr": PeakSignalNoiseRatio(data_range=2.0)}
        metrics["ssim"] = StructuralSimilarityIndexMeasure(data_range=2.0)
        if not codec.is_image:
            metrics["note_f1"] = BinaryF1Score()
        if with_lpips:
            metrics["lpips"] = Mean()
        if extractor is not None:
            metrics["rfid"] = FrechetDistance(checked_size(extractor))
            self.real = FeatureStatistics(checked_size(extractor))
        self.metrics = nn.ModuleDict(metrics)
        self.codes = CodeCounts(len(network.patch_nums), network.vocab)

    @torch.no_grad()
    def update(
        self, canvas: Tensor, real: Tensor, out: VQOutput, lpips: nn.Module | None, extractor: nn.Module | None
    ) -> None:
        """Take in a batch.

        Args:
            canvas: symbols, uint8 ``[B, C, H, W]``.
            real: their planes ``[B, P, H, W]``.
            out: what the tokenizer made of them.
            lpips: gives distances of pairs of images, where there was to be one.
            extractor: gives features, where there was to be one.
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
        """All metrics by name, float32 scalars; every process gets the same."""
        if "rfid" in self.metrics:
            self.metrics["rfid"].reference = self.real.compute()
        found = {name: metric.compute().float() for name, metric in self.metrics.items()}
        return found | report(self.codes.compute())

    def reset(self) -> None:
        """Start anew."""
        for metric in self.modules():
            if metric is not self and hasattr(metric, "reset"):
                metric.reset()
