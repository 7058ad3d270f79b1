"""``litscale bench decode``: what each way of decoding gains and costs, on one pair of networks."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
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
from lit_models import Decoding, LitSDVAR
from lit_models.speculative.comparison import no_totals, rates
from lit_models.tokenizer.weights import checksum
from lit_models.transformer_files import load_transformer
from litscale.cli.speed_quality import speed_and_quality
from litscale.metrics import FeatureStatistics
from litscale.metrics.features import checked_size, extract, identity
from litscale.metrics.fid import frechet_distance
from litscale.metrics.reference import read_reference
from litscale.models.modes import evaluating
from litscale.models.sdvar import ACCEPTANCES, Speculative
from litscale.storage.checkpoints import read_checkpoint
from litscale.storage.files import write_atomically

NAME = "bench_decode"
LOSSLESS = ("coupled", "rejection")


class BenchTrainer(Trainer):
    """Runs benchmarks in the trainer's precision, on one device."""

    def decode(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        gammas: tuple[int | str, ...] = (1, 2, 3),
        acceptances: tuple[str, ...] = ACCEPTANCES,
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

        The rows are the target alone, the draft alone, the module's own decoder, a hand-over for each entry_num and
        mask, and speculative decoding for each gamma, acceptance and threshold. All draw tokens as the module does
        (cfg, top_k, top_p, temperature). The table is printed and written to the run's folder as bench_decode.csv,
        .json and .md, with a picture of speed against quality, bench_decode.png. An interrupted benchmark goes on where
        it was.

        Args:
            model: a LitSDVAR.
            datamodule: its images are the reference of FID.
            ckpt_path: a checkpoint of LitSDVAR; without it, the model reads the files that its options name.
            weights_only: checkpoints are always read so.
            gammas: numbers of drafted scales; adaptive and cost are allowed too.
            acceptances: coupled, rejection, top1, topk, kl.
            thresholds: of the lossy ones; null = their default.
            entry_nums: numbers of the draft's scales in a hand-over; null = all from 1 to S - 1.
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
        grid = list(decodings(model.generation, gammas, acceptances, thresholds, entries, masks))
        for options in grid:
            model.decoder(options)  # which checks them before anything is run
        self._load(model, datamodule, ckpt_path)
        quality = None
        if features is not None:
            quality = Quality(features.to(model.device).eval(), reference, datamodule)
        cases = [Case(options.label, options) for options in grid]
        for name, path in (drafts or {}).items():
            cases += [
                Case(f"{name}: {options.label}", options, path) for options in grid if options.kind != "target_only"
            ]
        settings = model.generation.drawing | {"images": num_images, "batch_size": batch_size, "seeds": seeds}
        settings |= {"reference": reference, "precision": self.precision}
        bench = Bench(model, quality, num_images, batch_size, seeds)
        with evaluating(model), torch.no_grad(), self.precision_plugin.forward_context():
            rows = bench.rows(cases, run_folder(self) / f"{NAME}_unfinished.json", settings)
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


def decodings(
    own: Decoding,
    gammas: Sequence[int | str],
    acceptances: Sequence[str],
    thresholds: Sequence[float] | None,
    entry_nums: Sequence[int],
    masks: Sequence[str],
) -> Iterator[Decoding]:
    """The grid, each decoder once; they draw tokens as ``own`` does, which is among them."""
    found = [Decoding("target_only", **own.drawing), Decoding("draft_only", **own.drawing), own]
    found += [Decoding("handoff", entry_num=n, mask=mask, **own.drawing) for n in entry_nums for mask in masks]
    for rule in acceptances:
        for threshold in [None] if rule in LOSSLESS else thresholds or [None]:
            options = {"acceptance": rule, "threshold": threshold, **own.drawing}
            found += [Decoding("speculative", gamma=gamma, **options) for gamma in gammas]
    yield from {options.label: options for options in found}.values()


def file_facts(path: str) -> tuple[str, int, int]:
    """Path, size and time of a file, by which a change is noticed.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"drafts {path}: no such file")
    found = Path(path).stat()
    return path, found.st_size, found.st_mtime_ns


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
        found = self.nothing()
        if known is not None:
            for canvases in torch.from_numpy(known.images).permute(0, 3, 1, 2).split(64):
                self.take(found, canvases)
        elif datamodule is not None:
            datamodule.prepare_data()
            datamodule.setup("validate")
            for batch in datamodule.val_dataloader():
                if "canvas" in batch:
                    self.take(found, batch["canvas"])
        if not found.count:
            raise ValueError(
                "features: there are no real images to compare with; give data with canvases, or reference"
            )
        self.real = found.compute()

    def nothing(self) -> FeatureStatistics:
        """Statistics of no image, for :meth:`take`."""
        return FeatureStatistics(checked_size(self.features))

    def take(self, found: FeatureStatistics, canvases: Tensor) -> None:
        """Add canvases, uint8 ``[B, C, H, W]``."""
        device = next(chain(self.features.parameters(), self.features.buffers()), canvases).device
        found.update(extract(self.features, canvases.to(device))[0].cpu())

    def distance(self, found: FeatureStatistics) -> float:
        """To the real images."""
        return float(frechet_distance(found.compute(), self.real))


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        label: its name.
        options: the decoder.
        draft: checkpoint of its draft; None = the model's own.
    """

    label: str
    options: Decoding
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
                    rows[case.label] = self.row(case.options)
                    write_atomically(unfinished, json_text({"key": key, "rows": rows}))
        return {case.label: rows[case.label] for case in cases}

    def _load_draft(self, path: str) -> None:
        packed = load_transformer(self.model.draft, path, "drafts", "draft")
        if packed is not None and packed["checksum"] != checksum(self.model.vqvae):
            raise ValueError(f"different tokenizers: drafts {path} was trained with another one than the target")

    def row(self, options: Decoding) -> dict[str, float]:
        """Numbers of one decoder."""
        decoder = self.model.decoder(options)
        if isinstance(decoder, Speculative):
            decoder.gamma.reset()
        model, sums = self.model, no_totals(self.model.scales)
        classes = model.target.num_classes
        distances = []
        for seed in range(self.seeds):
            both = [] if self.quality is None else [self.quality.nothing(), self.quality.nothing()]
            for index in torch.arange(self.num_images, device=model.device).split(self.batch_size):
                labels = index % classes if classes else torch.full_like(index, -1)
                found = model.compare(labels, index, seed, options)
                for name, value in found.totals().items():
                    sums[name] += value
                for score, canvas in zip(both, (found.canvas, found.target_canvas), strict=False):
                    self.quality.take(score, canvas)
            if both:
                distances.append([self.quality.distance(score) for score in both])
        row = rates(sums)
        if distances:
            differences = [own - target for own, target in distances]
            row["fid"], target = (statistics.fmean(values) for values in zip(*distances, strict=True))
            row["fid_difference"] = statistics.fmean(differences)
            row["fid_deviation"] = statistics.stdev(differences) if len(differences) > 1 else 0.0
            row["fid_change"] = row["fid_difference"] / target
        return row
