"""``litscale bench decode``: what each way of decoding gains and costs, on one pair of networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from tqdm import tqdm

from callbacks.reporting.decode_report import decode_report
from callbacks.reporting.figures import write_picture
from callbacks.reporting.json_text import json_text
from callbacks.reporting.loggers import run_folder
from callbacks.reporting.result_table import Report
from lit_models import LitSDVAR
from lit_models.speculative.comparison import no_totals, rates
from lit_models.tokenizer.weights import checksum
from lit_models.transformer_files import load_transformer
from litscale.cli.speed_quality import speed_and_quality
from litscale.metrics import FeatureStatistics
from litscale.metrics.features import checked_size, extract, identity
from litscale.metrics.fid import frechet_distance
from litscale.metrics.reference import read_reference
from litscale.models.modes import evaluating
from litscale.models.sdvar import (
    KL,
    Acceptance,
    Agreement,
    CollaborativeDecoding,
    Coupled,
    Decoder,
    DraftOnly,
    GammaPolicy,
    Rejection,
    Speculative,
    TargetOnly,
    TopK,
)
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.files import write_atomically

NAME = "bench_decode"
RULES = (TopK(), TopK(k=5), KL(), Rejection(), Coupled())


class BenchTrainer(Trainer):
    """Runs benchmarks in the trainer's precision, on one device."""

    def decode(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        gammas: tuple[int | GammaPolicy, ...] = (1, 2, 3),
        acceptances: tuple[Acceptance, ...] | None = None,
        thresholds: tuple[float, ...] | None = None,
        entry_nums: tuple[int, ...] | None = None,
        masks: tuple[str, ...] = ("causal",),
        num_images: int = 200,
        batch_size: int = 50,
        seeds: int = 5,
        features: nn.Module | None = None,
        reference: str | None = None,
        drafts: dict[str, str] | None = None,
    ) -> Report:
        """Decode the same labels in many ways, each beside the target alone, and put the outcomes into one table.

        The rows are the target alone, the draft alone, the module's own decoder, collaborative decoding for each
        entry_num and mask, and speculative decoding for each gamma, acceptance and threshold. All draw tokens as the
        module does (model.generation). The table is printed and written to the run's folder as bench_decode.csv,
        .json and .md, with a picture of speed against quality, bench_decode.png. An interrupted benchmark goes on where
        it was.

        Args:
            model: a LitSDVAR.
            datamodule: its images are the reference of FID.
            ckpt_path: a checkpoint of LitSDVAR; without it, the model reads the files that its options name.
            weights_only: checkpoints are always read so.
            gammas: numbers of drafted scales, or policies: AdaptiveGamma, CostGamma.
            acceptances: rules, such as Coupled or {class_path: TopK, init_args: {k: 5}}; null = TopK with k 1 and 5,
                KL, Rejection and Coupled.
            thresholds: of the lossy rules; null = their own.
            entry_nums: numbers of the draft's scales in collaborative decoding; null = all from 1 to S - 1.
            masks: what the target sees of them.
            num_images: images for each seed; their labels take turns.
            batch_size: images decoded together.
            seeds: number of seeds 0, 1, ... of the noise; FID is a mean over them.
            features: extractor of FID, see `GenerationQuality`; null = no FID.
            reference: statistics or images as for `GenerationQuality`; null = the validation data.
            drafts: more drafts of the same size to measure, name -> checkpoint of LitVAR or LitSDVAR.

        Raises:
            ValueError: an option is out of range, the model is no LitSDVAR, or the reference cannot be made.
            FileNotFoundError: a file is missing.
        """
        if not isinstance(model, LitSDVAR):
            raise ValueError(f"litscale bench decode takes a LitSDVAR, not {type(model).__name__}")
        if self.world_size != 1:
            raise ValueError(f"a benchmark runs on one device: set trainer.devices to 1, not {self.world_size}")
        if min(num_images, batch_size, seeds) < 1:
            raise ValueError("num_images, batch_size and seeds must be at least 1")
        entries = range(1, model.scales) if entry_nums is None else entry_nums
        # 1. the decoders, checked before anything is run
        rules = RULES if acceptances is None else acceptances
        grid = decoders(model, gammas, rules, thresholds, entries, masks)
        self._load(model, datamodule, ckpt_path)
        quality = None
        if features is not None:
            quality = Quality(features.to(model.device).eval(), reference, datamodule)
        cases = [Case(label, decoder) for label, decoder in grid.items()]
        for name, path in (drafts or {}).items():
            cases += [Case(f"{name}: {label}", decoder, path) for label, decoder in list(grid.items())[1:]]
        settings = asdict(model.generation) | {"images": num_images, "batch_size": batch_size, "seeds": seeds}
        settings |= {"reference": reference, "precision": self.precision}
        # 2. measure them
        bench = Bench(model, quality, num_images, batch_size, seeds)
        with evaluating(model), torch.no_grad(), self.precision_plugin.forward_context():
            rows = bench.rows(cases, run_folder(self) / f"{NAME}_unfinished.json", settings)
        # 3. the table and the picture
        facts = f"{seeds} x {num_images} images in batches of {batch_size}, {model.device.type}"
        report = decode_report(NAME, facts, settings, rows)
        report.show()
        files = report.write(run_folder(self), with_csv=True)
        files.append(write_picture(speed_and_quality(report.tables[0]), run_folder(self) / f"{NAME}.png"))
        (run_folder(self) / f"{NAME}_unfinished.json").unlink(missing_ok=True)
        print("Written to " + ", ".join(map(str, files)))
        return report

    def _load(self, model: LitSDVAR, datamodule: LightningDataModule | None, ckpt_path: str | None) -> None:
        """Bring weights and data together on the device."""
        model.check_data(datamodule)
        if ckpt_path is not None:
            checkpoint = read_checkpoint(ckpt_path, "--ckpt_path")
            model.on_load_checkpoint(checkpoint)
            model.load_state_dict(checkpoint["state_dict"])
        model.load_files()
        model.to(self.strategy.root_device)


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
        key = hashlib.sha256(f"{settings} {identity(self.model)} {extractor} {files}".encode()).hexdigest()
        kept = json.loads(unfinished.read_text()) if unfinished.is_file() else {}
        rows = kept["rows"] if kept.get("key") == key else {}
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        draft = None
        with tqdm(cases, desc="Decoders", unit="decoder") as progress:
            for case in progress:
                progress.set_postfix_str(case.label)
                if case.draft not in (None, draft):
                    self._load_draft(case.draft)
                    draft = case.draft
                if case.label not in rows:
                    rows[case.label] = self.row(case.decoder)
                    write_atomically(unfinished, json_text({"key": key, "rows": rows}))
        return {case.label: rows[case.label] for case in cases}

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
