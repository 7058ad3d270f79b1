"""``litscale bench``: gains and costs of ways of decoding and sampling, side by side."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn

from callbacks.reporting.decode_pictures import mask_pictures
from callbacks.reporting.decode_report import decode_report
from callbacks.reporting.figures import write_picture
from callbacks.reporting.result_table import Column, Report, ResultTable
from callbacks.reporting.trainer_state import run_folder
from lit_models import LitFractal, LitSDVAR
from lit_models.runs import fill, weights_file
from lit_models.sampling_threads import limited_threads
from lit_models.tokenizer.data_checks import check_canvas
from litscale.cli.bench.choice import bound_of, choose_decoder, layer
from litscale.cli.bench.decoder_grid import Bench, Quality, cases_of, decoders
from litscale.cli.bench.fractal_grid import VARIED, FractalBench, validation_canvases, ways
from litscale.cli.bench.fractal_networks import load_networks
from litscale.cli.bench.fractal_report import fractal_report, seconds_picture
from litscale.cli.bench.speed_quality import speed_and_quality
from litscale.cli.runs import check_weights
from litscale.models.fractal import Fractal
from litscale.models.fractal.options import per_level
from litscale.models.modes import evaluating
from litscale.models.sdvar import KL, Acceptance, Costs, Coupled, GammaPolicy, Rejection, TargetOnly, TopK
from litscale.models.small_weights import small_weights
from litscale.storage.checkpoint_record import record_checkpoint
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
        large_scales: tuple[int, ...] | None = None,
        generations: tuple[dict[str, Any], ...] | None = None,
        num_images: int = 200,
        batch_size: int = 50,
        seeds: int = 5,
        speed_batches: tuple[int, ...] = (1, 8),
        repeats: int = 5,
        features: nn.Module | None = None,
        reference: str | None = None,
        drafts: dict[str, str] | None = None,
        choose: str | None = None,
        profile: bool = False,
    ) -> Report:
        """Decode the same labels in many ways, and compare each way with the target alone in one table.

        The rows are the target alone, the draft alone, the module's own decoder, refinement for each number of large
        scales, collaborative decoding for each entry_num and mask, and speculative decoding for each gamma, acceptance
        and threshold; the target alone and refinement once more for each of the generations. All others draw tokens as
        the module does (model.generation). Time is measured in rounds in which all decoders
        take their turn; medians count. The table is printed and written to the run's folder as bench_decode.csv, .json
        and .md, with a picture of speed against quality, bench_decode.png. An interrupted benchmark resumes where it
        was.

        Args:
            model: a LitSDVAR.
            datamodule: its images are the reference of FID.
            ckpt_path: path of a checkpoint of LitSDVAR, last or best; without it, the model reads the files that its
                options name.
            weights_only: checkpoints are always read so.
            untrained: use random weights if no others are given.
            gammas: numbers of drafted scales, or policies: AdaptiveGamma, CostGamma.
            acceptances: acceptance rules, such as Coupled or {class_path: TopK, init_args: {k: 5}}; null = TopK with k
                1 and 5, KL, Rejection and Coupled.
            thresholds: thresholds of the lossy rules; null = their defaults.
            entry_nums: numbers of the draft's scales in collaborative decoding; null = all from 1 to S - 1.
            masks: masks of collaborative decoding, see bench masks.
            large_scales: numbers of the target's scales in Refine; null = all from 1 to S - 1.
            generations: a list of changes of model.generation, such as [{cfg_until: 4, top_k: [0, 0, 0, 0, 1]}, {prune:
                {from_scale: 5, ratios: [0.5]}}]; null = no guidance from the middle scale on.
            num_images: number of images for each seed, with all labels in turn.
            batch_size: number of images decoded together.
            seeds: number of seeds 0, 1, ... of the noise; FID is a mean over them.
            speed_batches: batch sizes of the measurement of time; the picture shows the first.
            repeats: number of rounds in which time is measured.
            features: extractor of FID, see `GenerationQuality`; null = no FID.
            reference: statistics or images as for `GenerationQuality`; null = the validation data.
            drafts: more drafts of the same size to measure, name -> checkpoint of LitVAR or LitSDVAR.
            choose: a bound such as quality<=1%: of the decoders, the fastest by the cost model first, that whose
                Frechet distance increases by at most this bound is chosen and its config printed.
            profile: also show milliseconds an image of draft, target, sampling and tokenizer.

        Raises:
            ValueError: an option is out of range, the model is no LitSDVAR, it has no weights, or the reference cannot
                be made.
            FileNotFoundError: a file is missing.
        """
        model = self._pair(model)
        if min(num_images, batch_size, seeds) < 1:
            raise ValueError("num_images, batch_size and seeds must be at least 1")
        if min(repeats, len(speed_batches), *speed_batches) < 1:
            raise ValueError("repeats and speed_batches must be at least 1, and there must be one of the latter")
        bound = None if choose is None else bound_of(choose)
        if bound is not None and features is None:
            raise ValueError("choose compares Frechet distances: give features, or leave it out")
        # 1. the decoders, checked before anything is run
        inner = range(1, model.scales)
        entries, large = (inner if given is None else given for given in (entry_nums, large_scales))
        grid = decoders(
            model,
            gammas=gammas,
            acceptances=RULES if acceptances is None else acceptances,
            thresholds=thresholds,
            entry_nums=entries,
            masks=masks,
            large_scales=large,
        )
        if generations is None:
            generations = ({"cfg_until": model.scales // 2},) if model.generation.cfg else ()
        cases = cases_of(model, grid, generations)
        drafting = [case for case in cases if not isinstance(case.decoder, TargetOnly)]
        for name, path in (drafts or {}).items():
            cases += [replace(case, label=f"{name}: {case.label}", draft=path) for case in drafting]
        check_weights("bench decode", model, ckpt_path, untrained)
        model.check_classes(datamodule)
        check_canvas(model.vqvae, model.codec, datamodule)
        self._load(model, ckpt_path)
        model.load_files()
        model.to(self.strategy.root_device)
        quality = None
        if features is not None:
            quality = Quality(features.to(model.device).eval(), reference, datamodule)
        settings = asdict(model.generation.complete())
        settings |= {"images": num_images, "batch_size": batch_size, "seeds": seeds}
        settings |= {"reference": reference, "precision": self.precision}
        settings |= {"speed_batches": list(speed_batches), "repeats": repeats}
        if profile:
            settings["profile"] = True
        # 2. measure them
        bench = Bench(
            model=model,
            quality=quality,
            num_images=num_images,
            batch_size=batch_size,
            seeds=seeds,
            speed_batches=speed_batches,
            repeats=repeats,
            profile=profile,
        )
        unfinished, identity = run_folder(self) / f"{NAME}_unfinished.json", bench.identity(cases, settings)
        choice = None
        with evaluating(model), torch.no_grad(), self.precision_plugin.forward_context():
            if bound is None:
                rows = bench.rows(cases, unfinished, identity)
            else:
                rows, choice = choose_decoder(bench, cases, bound, unfinished, identity)
        # 3. the table, the picture and the choice
        caption = f"{seeds} x {num_images} images in batches of {batch_size}, {model.device.type}"
        if features is not None:
            caption += f", Frechet distance in {type(features).__name__}"
        first = speed_batches[0]
        columns = {"ms_per_image": Column(f"ms per image, batch {first}", right=True)}
        names = {first: "speedup"} | {n: f"speedup_{n}" for n in speed_batches[1:]}
        columns |= {name: Column(f"speed-up, batch {n}", "{:.2f}x", right=True) for n, name in names.items()}
        report = decode_report(NAME, caption, settings, rows, columns)
        report.show()
        files = report.write(run_folder(self), with_csv=True)
        files.append(write_picture(speed_and_quality(report.tables[0]), run_folder(self) / f"{NAME}.png"))
        unfinished.unlink(missing_ok=True)
        print("Written to " + ", ".join(map(str, files)))
        if choice is not None:
            print(f"\nThe fastest decoder with {choose} is {choice.label}; as a layer after the pair's config:\n")
            print(layer(choice, model))
        return report

    def fractal(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        other_checkpoint: str | None = None,
        draft_checkpoint: str | None = None,
        patches: tuple[int, ...] | None = None,
        iterations: tuple[int, ...] = (8, 16, 64),
        orders: tuple[str, ...] = ("random", "confidence"),
        uncached: int = 64,
        batch_size: int = 1,
        train_batch_size: int = 4,
        repeats: int = 5,
        threads: int = 1,
        quality_canvases: int = 64,
    ) -> Report:
        """Compare the speed of AR and MAR networks of equal widths and depths: training steps and all ways of sampling.

        One network is AR on every level and one MAR, with the sizes, widths, blocks and heads of the config; if the
        config's own levels are mixed, it is the third. Rounds in which all ways take their turn are repeated, and
        medians count. The table is printed and written to the run's folder as bench_fractal.csv, .json and .md, with a
        picture, bench_fractal.png. An interrupted benchmark resumes where it was.

        Args:
            model: a LitFractal; other options of sampling are its model.generation.
            datamodule: trained networks are scored on its validation data.
            ckpt_path: path of a checkpoint of the config's network, last or best; without it, its weights are random.
            weights_only: checkpoints are always read so.
            other_checkpoint: the run folder of the network with the other generators, or a checkpoint in it; without
                it, the weights are random.
            draft_checkpoint: the same for a smaller AR network that guesses for the AR one; null = the model's.
            patches: numbers of patches of the first level, for canvases as high as the config's; null = 64, 256 and
                1024 for random weights, and the config's number for trained ones.
            iterations: numbers of MAR steps on the first level, left out if there are fewer patches; other levels
                use those of model.generation.
            orders: orders of MAR's patches: random, raster or confidence.
            uncached: largest number of patches for which AR is also sampled without a cache.
            batch_size: number of canvases that are sampled together.
            train_batch_size: number of canvases in a training step.
            repeats: number of timed rounds; a round before them counts operators.
            threads: number of CPU threads; with one, CPU time is measured.
            quality_canvases: number of validation canvases on which trained networks are scored; 0 = none.

        Raises:
            ValueError: an option is out of range, the model is no LitFractal, or a checkpoint does not fit.
            FileNotFoundError: a file is missing.
        """
        # 1. the networks and what is to be measured, checked before anything is run
        model, network = self._fractal(model)
        if min(batch_size, train_batch_size, repeats, threads) < 1 or quality_canvases < 0:
            raise ValueError(
                "batch_size, train_batch_size, repeats and threads must be at least 1, and quality_canvases at least 0"
            )
        if patches is not None and not patches:
            raise ValueError("patches must be at least one number, or null")
        if model.generation.compile:
            raise ValueError("bench fractal measures sampling that is not compiled: set generation.compile to false")
        self._load(model, ckpt_path)
        with small_weights(network, model.generation.weights):
            pass  # a network whose weights cannot be smaller is refused
        trained = ckpt_path is not None or bool(model.weight_files())
        draft = draft_checkpoint or model.draft_checkpoint
        networks = load_networks(network, trained, other_checkpoint, draft)
        grid = ways(networks.generators, model.generation, iterations, orders, networks.draft is not None)
        if patches is None:
            patches = (networks.patches,) if networks.trained_ones() else (64, 256, 1024)
        canvases = []
        if networks.trained_ones() and datamodule is not None:
            canvases = validation_canvases(datamodule, quality_canvases)
        # 2. measure it
        unit, nats = list(model.units.items())[-1]
        bench = FractalBench(
            networks=networks,
            batch_size=batch_size,
            train_batch_size=train_batch_size,
            repeats=repeats,
            uncached=uncached,
            canvases=canvases,
            passes=model.nll_passes,
            unit=unit,
            nats=nats,
        )
        settings = {name: value for name, value in asdict(model.generation).items() if name not in VARIED}
        settings |= {"batch_size": batch_size, "train_batch_size": train_batch_size}
        settings |= {"repeats": repeats, "threads": threads, "precision": self.precision}
        settings["lower_iterations"] = per_level("iterations", model.generation.iterations, len(network.levels))[1:]
        settings["scored_canvases"] = sum(len(batch["canvas"]) for batch in canvases)
        given = {"ckpt_path": ckpt_path, "other_checkpoint": other_checkpoint, "draft_checkpoint": draft}
        checkpoints = {
            option: asdict(record_checkpoint(weights_file(path), option)) for option, path in given.items() if path
        }
        unfinished = run_folder(self) / "bench_fractal_unfinished.json"
        autocast = self.precision_plugin.forward_context()
        with limited_threads(network, threads), evaluating(model), torch.no_grad(), autocast:
            rows = bench.rows(patches, grid, unfinished, settings)
        # 3. the table and the picture
        report = fractal_report(
            networks.weights, checkpoints, settings=settings, rows=rows, unit=unit, device=model.device.type
        )
        report.show()
        files = report.write(run_folder(self), with_csv=True)
        files.append(write_picture(seconds_picture(report.data, unit), run_folder(self) / "bench_fractal.png"))
        unfinished.unlink(missing_ok=True)
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
        """Measure the time of both networks' calls, and compute how many scales to draft for the least expected time.

        Weights do not matter here, so none are read. The table is printed and written to the run's folder as
        bench_costs.json and .md: for each scale the milliseconds of a call of both networks for it alone, and the gamma
        of a round that begins there, by the cost model of `CostGamma`. Below it stand the expected time of a batch, and
        the entry_num with which collaborative decoding is the fastest.

        Args:
            model: a LitSDVAR; guidance doubles the rows of a call, as in decoding.
            datamodule: is not needed.
            batch_size: number of images in a call.
            acceptance: probability that a drafted scale is accepted, 0..1.
            repeats: number of timings of each call; the median counts.

        Raises:
            ValueError: an option is out of range, or the model is no LitSDVAR.
        """
        model = self._pair(model)
        if min(batch_size, repeats) < 1 or not 0 <= acceptance <= 1:
            raise ValueError("batch_size and repeats must be at least 1, and acceptance in 0..1")
        model.to(self.strategy.root_device)
        with self.precision_plugin.forward_context():
            costs = Costs.measure(model.draft, model.target, batch_size, model.generation, repeats)
        gammas, seconds = costs.plan([acceptance] * model.scales)
        rows = {
            str(k): {"draft_ms": 1e3 * draft, "target_ms": 1e3 * target, "gamma": gamma}
            for k, (draft, target, gamma) in enumerate(zip(costs.draft, costs.target, gammas, strict=True))
        }
        caption = f"batches of {batch_size}, acceptance {acceptance}, {model.device.type}"
        remark = (
            f"{1e3 * seconds:.4g} ms expected, {1e3 * sum(costs.target):.4g} ms of the target alone; the fastest "
            f"collaborative decoding has entry_num {costs.entry_num()}."
        )
        table = ResultTable("scale", COSTS, rows, caption)
        data = {"costs": asdict(costs), "gammas": gammas, "seconds": seconds, "entry_num": costs.entry_num()}
        report = Report("bench_costs", "Costs of calls", [table], {"facts": caption} | data, remark=remark)
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
        """Return the model, or raise a ValueError if it is no LitSDVAR or several devices are given."""
        if not isinstance(model, LitSDVAR):
            raise ValueError(f"litscale bench takes a LitSDVAR, not {type(model).__name__}")
        self._check_device()
        return model

    def _fractal(self, model: LightningModule) -> tuple[LitFractal, Fractal]:
        """Return the model and its network, or raise a ValueError if they are no LitFractal and Fractal on a device."""
        if not isinstance(model, LitFractal) or not isinstance(model.network, Fractal):
            name = type(model.network if isinstance(model, LitFractal) else model).__name__
            raise ValueError(f"litscale bench fractal takes a LitFractal with a Fractal as its network, not {name}")
        self._check_device()
        return model, model.network

    def _check_device(self) -> None:
        if self.world_size != 1:
            raise ValueError(f"a benchmark runs on one device: set trainer.devices to 1, not {self.world_size}")

    def _load(self, model: LightningModule, ckpt_path: str | None) -> None:
        """Load the weights of a checkpoint, if one is given, and move the model to the device."""
        if ckpt_path is not None:
            fill(model, read_checkpoint(ckpt_path, "--ckpt_path"))
        model.to(self.strategy.root_device)
