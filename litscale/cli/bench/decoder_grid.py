"""The grid of ``litscale bench decode``: its decoders, and what is measured of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lit_models import LitSDVAR
from lit_models.speculative.comparison import no_totals, rates
from lit_models.tokenizer.weights import checksum
from lit_models.transformer_files import load_transformer
from litscale.cli.bench.measured import measured
from litscale.metrics import FeatureStatistics
from litscale.metrics.features import checked_size, extract, identity
from litscale.metrics.fid import frechet_distance
from litscale.metrics.reference import read_reference
from litscale.models.sdvar import (
    Acceptance,
    Agreement,
    CollaborativeDecoding,
    Decoder,
    DraftOnly,
    GammaPolicy,
    Speculative,
    TargetOnly,
)


def decoders(
    model: LitSDVAR,
    gammas: Sequence[int | GammaPolicy],
    acceptances: Sequence[Acceptance],
    thresholds: Sequence[float] | None,
    entry_nums: Sequence[int],
    masks: Sequence[str],
) -> dict[str, Decoder]:
    """The grid by its names in the table, each decoder once, the target alone first.

    Raises:
        ValueError: an option is out of range.
    """
    draft, target = pair = model.draft, model.target
    grid: list[Decoder] = [TargetOnly(target), DraftOnly(draft), model.decoder]
    grid += [CollaborativeDecoding(*pair, entry_num=n, mask=mask) for n in entry_nums for mask in masks]
    for rule in acceptances:
        rules = [rule]
        if thresholds and isinstance(rule, Agreement) and not rule.lossless:
            rules = [replace(rule, threshold=least) for least in thresholds]
        grid += [Speculative(*pair, gamma=gamma, acceptance=each) for each in rules for gamma in gammas]
    return {str(decoder): decoder for decoder in grid}


def file_facts(path: str) -> tuple[str, int, int]:
    """Path, size and time of a file, by which a change is noticed.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"drafts {path}: no such file")
    status = Path(path).stat()
    return path, status.st_size, status.st_mtime_ns


class Quality:
    """Frechet distances to real images.

    Args:
        features: the extractor, on its device.
        reference: file, or None for the validation data.
        datamodule: of these.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not fit, or there are no images.
    """

    def __init__(self, features: nn.Module, reference: str | None, datamodule: LightningDataModule | None) -> None:
        self.features = features
        known = None if reference is None else read_reference(reference, checked_size(features))
        if known is not None and known.statistics is not None:
            self.real = known.statistics
            return
        statistics = self.nothing()
        if known is not None:
            for canvases in torch.from_numpy(known.images).permute(0, 3, 1, 2).split(64):
                self.take(statistics, canvases)
        elif datamodule is not None:
            datamodule.prepare_data()
            datamodule.setup("validate")
            for batch in datamodule.val_dataloader():
                if "canvas" in batch:
                    self.take(statistics, batch["canvas"])
        if not statistics.count:
            raise ValueError(
                "features: there are no real images to compare with; give data with canvases, or reference"
            )
        self.real = statistics.compute()

    def nothing(self) -> FeatureStatistics:
        """Statistics of no image, for :meth:`take`."""
        return FeatureStatistics(checked_size(self.features))

    def take(self, statistics: FeatureStatistics, canvases: Tensor) -> None:
        """Add canvases, uint8 ``[B, C, H, W]``."""
        device = next(chain(self.features.parameters(), self.features.buffers()), canvases).device
        statistics.update(extract(self.features, canvases.to(device))[0].cpu())

    def distance(self, statistics: FeatureStatistics) -> float:
        """To the real images."""
        return float(frechet_distance(statistics.compute(), self.real))


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        label: its name.
        decoder: what is measured.
        draft: checkpoint of its draft; None = the model's own.
    """

    label: str
    decoder: Decoder
    draft: str | None = None


@dataclass
class Bench:
    """Measures decoders.

    Attributes:
        model: the pair, on its device.
        quality: of FID, or None.
        num_images: for each seed.
        batch_size: decoded together.
        seeds: their number.
    """

    model: LitSDVAR
    quality: Quality | None
    num_images: int
    batch_size: int
    seeds: int

    def rows(self, cases: list[Case], unfinished: Path, settings: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Numbers of each case; those that ``unfinished`` has already are taken from there.

        Raises:
            FileNotFoundError: there is no file of a draft.
            ValueError: a draft does not fit.
        """
        extractor = None if self.quality is None else identity(self.quality.features)
        files = {case.label: file_facts(case.draft) for case in cases if case.draft is not None}
        draft = None

        def row(case: Case) -> dict[str, float]:
            nonlocal draft
            if case.draft not in (None, draft):
                self._load_draft(case.draft)
                draft = case.draft
            return self.row(case.decoder)

        known = f"{settings} {identity(self.model)} {extractor} {files}"
        return measured({case.label: partial(row, case) for case in cases}, unfinished, known, "decoder")

    def _load_draft(self, path: str) -> None:
        packed = load_transformer(self.model.draft, path, "drafts", "draft")
        if packed is not None and packed["checksum"] != checksum(self.model.vqvae):
            raise ValueError(f"different tokenizers: drafts {path} was trained with another one than the target")

    def row(self, decoder: Decoder) -> dict[str, float]:
        """Numbers of one decoder."""
        decoder.reset()
        model, sums = self.model, no_totals(self.model.scales)
        classes = model.target.num_classes
        distances = []
        for seed in range(self.seeds):
            both = [] if self.quality is None else [self.quality.nothing(), self.quality.nothing()]
            for index in torch.arange(self.num_images, device=model.device).split(self.batch_size):
                labels = index % classes if classes else torch.full_like(index, -1)
                compared = model.compare(labels, index, seed, decoder)
                for name, value in compared.totals().items():
                    sums[name] += value
                if self.quality is not None:
                    self.quality.take(both[0], compared.canvas)
                    self.quality.take(both[1], compared.target_canvas)
            if self.quality is not None:
                distances.append([self.quality.distance(score) for score in both])
        row = rates(sums)
        if distances:
            differences = [own - target for own, target in distances]
            row["fid"], target = (fmean(values) for values in zip(*distances, strict=True))
            row["fid_difference"] = fmean(differences)
            row["fid_deviation"] = stdev(differences) if len(differences) > 1 else 0.0
            row["fid_change"] = row["fid_difference"] / target
        return row
