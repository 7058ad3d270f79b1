"""``litscale bench``: what each way of decoding gains and costs, on one pair of networks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn

from callbacks.reporting.decode_pictures import mask_pictures
from callbacks.reporting.decode_report import decode_report
from callbacks.reporting.figures import write_picture
from callbacks.reporting.result_table import Column, Report, ResultTable
from callbacks.reporting.trainer_state import run_folder
from lit_models import LitSDVAR
from litscale.cli.decoder_grid import Bench, Case, Quality, decoders
from litscale.cli.runs import check_weights
from litscale.cli.speed_quality import speed_and_quality
from litscale.models.modes import evaluating
from litscale.models.sdvar import KL, Acceptance, Costs, Coupled, GammaPolicy, Rejection, TopK
from litscale.storage.checkpoints import read_checkpoint

NAME = "bench_decode"
COSTS = {"draft_ms": Column("draft ms", right=True), "target_ms": Column("target ms", right=True)}
COSTS |= {"gamma": Column("gamma", "{:.0f}", right=True)}
RULES = (TopK(), TopK(k=5), KL(), Rejection(), Coupled())


class BenchTrainer(Trainer):
    """Runs benchmarks in the trainer's precision, on one device."""

    def decode(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        untrained: bool = False,
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
            untrained: whether random weights will do, if no others are given.
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
            ValueError: an option is out of range, the model is no LitSDVAR, it has no weights, or the reference cannot
                be made.
            FileNotFoundError: a file is missing.
        """
        model = self._pair(model)
        if min(num_images, batch_size, seeds) < 1:
            raise ValueError("num_images, batch_size and seeds must be at least 1")
        entries = range(1, model.scales) if entry_nums is None else entry_nums
        # 1. the decoders, checked before anything is run
        rules = RULES if acceptances is None else acceptances
        grid = decoders(model, gammas, rules, thresholds, entries, masks)
        check_weights("bench decode", model, ckpt_path, untrained)
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

    def costs(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        batch_size: int = 1,
        acceptance: float = 0.7,
        repeats: int = 3,
    ) -> Report:
        """Time the calls of both networks, and say how many scales to draft so that images are finished soonest.

        Weights do not matter here, so none are read. The table is printed and written to the run's folder as
        bench_costs.json and .md: for each scale the milliseconds of a call of both networks for it alone, and the gamma
        of a round that begins there, by the cost model of `CostGamma`. Below it stand the expected time of a batch, and
        the entry_num with which collaborative decoding is the fastest.

        Args:
            model: a LitSDVAR; guidance doubles the rows of a call, as in decoding.
            datamodule: is not needed.
            batch_size: images of a call.
            acceptance: probability that a drafted scale is accepted, 0..1.
            repeats: how often calls are timed; medians count.

        Raises:
            ValueError: an option is out of range, or the model is no LitSDVAR.
        """
        model = self._pair(model)
        if min(batch_size, repeats) < 1 or not 0 <= acceptance <= 1:
            raise ValueError("batch_size and repeats must be at least 1, and acceptance in 0..1")
        model.to(self.strategy.root_device)
        with self.precision_plugin.forward_context():
            costs = Costs.measure(model.draft, model.target, batch_size, model.generation.cfg > 0, repeats)
        gammas, seconds = costs.plan([acceptance] * model.scales)
        rows = {
            str(k): {"draft_ms": 1e3 * draft, "target_ms": 1e3 * target, "gamma": gamma}
            for k, (draft, target, gamma) in enumerate(zip(costs.draft, costs.target, gammas, strict=True))
        }
        facts = f"batches of {batch_size}, acceptance {acceptance}, {model.device.type}"
        remark = (
            f"{1e3 * seconds:.4g} ms expected, {1e3 * sum(costs.target):.4g} ms of the target alone; the fastest "
            f"collaborative decoding has entry_num {costs.entry_num()}."
        )
        table = ResultTable("scale", COSTS, rows, facts)
        data = {"costs": asdict(costs), "gammas": gammas, "seconds": seconds, "entry_num": costs.entry_num()}
        report = Report("bench_costs", "Costs of calls", [table], {"facts": facts} | data, remark=remark)
        report.show()
        print(remark)
        print("Written to " + ", ".join(map(str, report.write(run_folder(self)))))
        return report

    def masks(self, model: LightningModule, datamodule: LightningDataModule | None = None, entry_num: int = 2) -> Path:
        """Draw what each mask lets the target see of the draft's scales, as masks.png in the run's folder.

        Args:
            model: a LitSDVAR.
            datamodule: is not needed.
            entry_num: number of the draft's scales in collaborative decoding.

        Raises:
            ValueError: there is no such scale, or the model is no LitSDVAR.
        """
        figure = mask_pictures(self._pair(model).target.patch_nums, entry_num)
        path = write_picture(figure, run_folder(self) / "masks.png")
        print(f"Written to {path}")
        return path

    def _pair(self, model: LightningModule) -> LitSDVAR:
        """The model, if it can be benchmarked here."""
        if not isinstance(model, LitSDVAR):
            raise ValueError(f"litscale bench takes a LitSDVAR, not {type(model).__name__}")
        if self.world_size != 1:
            raise ValueError(f"a benchmark runs on one device: set trainer.devices to 1, not {self.world_size}")
        return model

    def _load(self, model: LitSDVAR, datamodule: LightningDataModule | None, ckpt_path: str | None) -> None:
        """Bring weights and data together on the device."""
        model.check_data(datamodule)
        if ckpt_path is not None:
            checkpoint = read_checkpoint(ckpt_path, "--ckpt_path")
            model.on_load_checkpoint(checkpoint)
            model.load_state_dict(checkpoint["state_dict"])
        model.load_files()
        model.to(self.strategy.root_device)
