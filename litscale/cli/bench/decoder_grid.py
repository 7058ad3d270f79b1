"""The grid of ``litscale bench decode``: its decoders, and the measurements of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lit_models import LitSDVAR
from lit_models.speculative.comparison import compare, no_totals, rates
from lit_models.tokenizer.weights import checksum
from lit_models.transformer_files import load_transformer
from litscale.cli.bench.generations import changed, changes
from litscale.cli.bench.measured import Numbers, measured
from litscale.metrics import FeatureStatistics
from litscale.metrics.features import checked_size, extract, identity
from litscale.metrics.fid import frechet_distance
from litscale.metrics.reference import read_reference
from litscale.models.sdvar import (
    Acceptance,
    Agreement,
    CollaborativeDecoding,
    Decoded,
    Decoder,
    DraftOnly,
    GammaPolicy,
    Refine,
    Speculative,
    TargetOnly,
)
from litscale.models.sdvar.report import PARTS
from litscale.models.var import VARGeneration

TIMES = ("ms_per_image", "target_only_ms_per_image", "speedup")  # of rates that are measured in turns instead


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        label: name of the row.
        decoder: the decoder that is measured.
        options: options with which tokens are drawn.
        draft: checkpoint of its draft; None for the model's own.
    """

    label: str
    decoder: Decoder
    options: VARGeneration
    draft: str | None = None


def decoders(
    model: LitSDVAR,
    *,
    gammas: Sequence[int | GammaPolicy],
    acceptances: Sequence[Acceptance],
    thresholds: Sequence[float] | None,
    entry_nums: Sequence[int],
    masks: Sequence[str],
    large_scales: Sequence[int] = (),
) -> dict[str, Decoder]:
    """Return name in the table -> decoder for the grid, with each decoder once and the target alone first.

    Raises:
        ValueError: an option is out of range.
    """
    draft, target = pair = model.draft, model.target
    grid: list[Decoder] = [TargetOnly(target), DraftOnly(draft), model.decoder]
    grid += [Refine(*pair, large_scales=n) for n in large_scales]
    grid += [CollaborativeDecoding(*pair, entry_num=n, mask=mask) for n in entry_nums for mask in masks]
    for rule in acceptances:
        rules = [rule]
        if thresholds and isinstance(rule, Agreement) and not rule.lossless:
            rules = [replace(rule, threshold=least) for least in thresholds]
        grid += [Speculative(*pair, gamma=gamma, acceptance=each) for each in rules for gamma in gammas]
    return {str(decoder): decoder for decoder in grid}


def cases_of(model: LitSDVAR, grid: Mapping[str, Decoder], generations: Sequence[Mapping[str, Any]]) -> list[Case]:
    """Return the decoders of the grid as rows, the target alone first.

    Tokens are drawn with the module's options without those that save arithmetic; only the module's own decoder draws
    with all of them. The target alone and refinement have one more row for each of ``generations``, which are changes
    of these options.

    Raises:
        ValueError: a change does not fit the options.
    """
    plain = model.generation.complete()
    pairs = [(each, model.generation if each is model.decoder else plain) for each in grid.values()]
    pairs += [
        (decoder, options)
        for options in (changed(plain, change, model.scales) for change in generations)
        for decoder in grid.values()
        if type(decoder) in (TargetOnly, Refine)
    ]
    cases = [Case(", ".join([str(decoder), *changes(options, plain)]), decoder, options) for decoder, options in pairs]
    return list({case.label: case for case in cases}.values())


def draft_version(path: str) -> tuple[str, int, int]:
    """Return path, size and time of change of a draft's file, by which a resumed benchmark notices another file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"drafts {path}: no such file")
    status = Path(path).stat()
    return path, status.st_size, status.st_mtime_ns


class Quality:
    """Computes Frechet distances to real images.

    Args:
        features: the extractor, on its device.
        reference: file of statistics or images; None for the validation data.
        datamodule: has the validation data.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file does not fit the extractor, or there are no real images.
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
        """Return the statistics of zero images, to be filled by :meth:`take`."""
        return FeatureStatistics(checked_size(self.features))

    def take(self, statistics: FeatureStatistics, canvases: Tensor) -> None:
        """Add the features of canvases, uint8 ``[B, C, H, W]``, to statistics."""
        device = next(chain(self.features.parameters(), self.features.buffers()), canvases).device
        statistics.update(extract(self.features, canvases.to(device))[0].cpu())

    def distance(self, statistics: FeatureStatistics) -> float:
        """Return the Frechet distance between statistics and the real images."""
        return float(frechet_distance(statistics.compute(), self.real))


@dataclass(kw_only=True)
class Bench:
    """Compares the images of decoders with those of the target alone, and measures in turns how long decoders take.

    Attributes:
        model: the pair, on its device.
        quality: computes FID; None for no FID.
        num_images: number of images for each seed.
        batch_size: number of images decoded together.
        seeds: number of seeds.
        speed_batches: numbers of images decoded together when time is measured.
        repeats: number of timed rounds, in each of which all decoders take their turn.
        profile: whether the time of each part of decoding is also measured while images are compared.
    """

    model: LitSDVAR
    quality: Quality | None
    num_images: int
    batch_size: int
    seeds: int
    speed_batches: Sequence[int]
    repeats: int
    profile: bool = False
    _draft: str | None = None  # which draft the pair has now
    _own: dict[str, Tensor] | None = None  # the weights of its own, once it had others
    _alone: dict[tuple[int, int], Decoded] = field(default_factory=dict)  # of the target, by seed and first image

    def rows(self, cases: Sequence[Case], unfinished: Path, settings: str) -> dict[str, Numbers]:
        """Measure each case, the target alone first; measurements that ``unfinished`` holds are not repeated.

        Args:
            cases: the decoders.
            unfinished: file of the measurements so far.
            settings: the text of :meth:`identity`.

        Raises:
            ValueError: a draft does not fit.
        """
        measures = {case.label: partial(self.row, case) for case in cases}
        # a round counts for the decoders that took their turn in it, and for no others
        timed = hashlib.sha256("\n".join(measures).encode()).hexdigest()[:8]
        rounds = {
            f"round {i + 1} in batches of {batch} #{timed}": (partial(self.seconds, cases, batch, i), batch)
            for batch in self.speed_batches
            for i in range(self.repeats)
        }
        measures |= {name: measure for name, (measure, _) in rounds.items()}
        numbers = measured(measures, unfinished, settings)
        rows = {case.label: numbers[case.label] for case in cases}
        for batch in self.speed_batches:
            self._add_times(rows, [numbers[name] for name, (_, size) in rounds.items() if size == batch], batch)
        return with_arithmetic(rows)

    def identity(self, cases: Sequence[Case], settings: Mapping[str, Any]) -> str:
        """Return a text that tells all on which the numbers of the cases depend.

        Raises:
            FileNotFoundError: the file of a draft is missing.
        """
        extractor = None if self.quality is None else identity(self.quality.features)
        files = {case.label: draft_version(case.draft) for case in cases if case.draft is not None}
        return f"{settings} {identity(self.model)} {extractor} {files}"

    def row(self, case: Case) -> Numbers:
        """Measure one decoder: its counts, and how its images differ from those of the target alone."""
        # 1. decode the same labels for each seed, and compare with the target alone
        self.take_draft(case)
        case.decoder.reset()
        sums = no_totals(self.model.scales)
        distances = []
        for seed in range(self.seeds):
            both = [] if self.quality is None else [self.quality.nothing(), self.quality.nothing()]
            for index in torch.arange(self.num_images, device=self.model.device).split(self.batch_size):
                made = self.decode(case.decoder, case.options, index, seed, self.profile)
                compared = compare(made, self.alone(index, seed), self.model.codec)
                for name, value in compared.totals().items():
                    sums[name] += value
                if self.quality is not None:
                    self.quality.take(both[0], compared.canvas)
                    self.quality.take(both[1], compared.target_canvas)
            if self.quality is not None:
                distances.append([self.quality.distance(score) for score in both])
        # 2. counts, and where it is asked for, the time of each part
        row = {name: value for name, value in rates(sums).items() if name not in TIMES}
        if self.profile:
            row |= {f"{part}_ms": 1e3 * sums[f"seconds/{part}"] / sums["images"] for part in PARTS}
        # 3. quality, with the standard error over the seeds
        if distances:
            differences = [own - target for own, target in distances]
            row["fid"], target = (fmean(values) for values in zip(*distances, strict=True))
            row["fid_difference"] = fmean(differences)
            row["fid_error"] = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
            row["fid_change"] = row["fid_difference"] / target
        return row

    def seconds(self, cases: Sequence[Case], batch: int, seed: int) -> Numbers:
        """Return label -> seconds of a batch, for each decoder in turn; before the first round each one runs once."""
        index = torch.arange(batch, device=self.model.device)
        times = {}
        for warm_up in (True, False) if seed == 0 else (False,):
            for case in cases:
                self.take_draft(case)
                made = self.decode(case.decoder, case.options, index, seed)
                if not warm_up:
                    times[case.label] = made.report.seconds["wall"]
        return times

    def decode(
        self, decoder: Decoder, options: VARGeneration, index: Tensor, seed: int, profile: bool = False
    ) -> Decoded:
        """Decode the images with the numbers ``index``, int64 ``[B]``; their labels are the classes in turn."""
        classes = self.model.target.num_classes
        labels = index % classes if classes else torch.full_like(index, -1)
        return self.model.decode(decoder, options, labels, index, seed, profile=profile)

    def alone(self, index: Tensor, seed: int) -> Decoded:
        """Return the same images from the target alone with all its arithmetic, decoded once for all decoders."""
        key = seed, int(index[0])
        if key not in self._alone:
            options = self.model.generation.complete()
            self._alone[key] = self.decode(self.model.target_only, options, index, seed)
        return self._alone[key]

    def take_draft(self, case: Case) -> None:
        """Load the draft of a case, if the case before had another one."""
        if case.draft == self._draft:
            return
        network, path = self.model.draft, case.draft
        if self._own is None:
            self._own = {name: value.clone() for name, value in network.state_dict().items()}
        if path is None:
            network.load_state_dict(self._own)
        else:
            packed = load_transformer(network, path, "drafts", "draft")
            if packed is not None and packed["checksum"] != checksum(self.model.vqvae):
                raise ValueError(f"different tokenizers: drafts {path} was trained with another one than the target")
        self._draft = path

    def _add_times(self, rows: dict[str, Numbers], rounds: Sequence[Numbers], batch: int) -> None:
        """Add medians over rounds to each row: milliseconds per image, and the target's time over the decoder's."""
        alone = next(iter(rows))
        for label, row in rows.items():
            ratio = median(times[alone] / times[label] for times in rounds)
            row[f"speedup_{batch}"] = ratio
            if batch == self.speed_batches[0]:
                row["ms_per_image"] = 1e3 * median(times[label] for times in rounds) / batch
                row["speedup"] = ratio


def with_arithmetic(rows: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Return the rows with ``arithmetic`` added: the operations of the target alone, the first row, over their own."""
    alone = next(iter(rows.values()))["gflops_per_image"]
    return {label: row | {"arithmetic": alone / row["gflops_per_image"]} for label, row in rows.items()}
