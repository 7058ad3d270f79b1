"""The grid of ``litscale bench fractal``: training steps and ways of sampling, and the measurements of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_models.batches import Batch
from litscale.cli.bench.fractal_networks import Networks
from litscale.cli.bench.measured import Numbers, measured
from litscale.metrics.features import identity
from litscale.models.fractal import Fractal, Generation, GenerationReport, generate
from litscale.models.fractal.masking import StepMasking
from litscale.models.fractal.options import per_level
from litscale.models.sdvar.clock import Stopwatch
from litscale.storage.fingerprints import of_tensors

REFERENCE = "AR sequential"
TRAINING = "training step"
Row = dict[str, float | str]
VARIED = ("iterations", "order", "decoding", "guess", "parallel_level", "use_cache")  # options that ways set


@dataclass(frozen=True)
class Way:
    """A training step or a way of sampling, which is measured at every number of patches.

    Attributes:
        label: name of the way.
        network: key of its network in :meth:`Networks.at`.
        options: options of sampling; None for a training step.
    """

    label: str
    network: str
    options: Generation | None = None

    @property
    def reference(self) -> str:
        """The label of the way with which its time is compared."""
        return f"AR {TRAINING}" if self.options is None else REFERENCE


def ways(
    generators: Mapping[str, Sequence[str]],
    base: Generation,
    iterations: Iterable[int],
    orders: Iterable[str],
    drafted: bool,
) -> list[Way]:
    """Return a training step of each network, then all ways to sample from each, the reference first.

    Args:
        generators: network -> generators of its levels.
        base: the options of sampling that the ways have in common.
        iterations: numbers of MAR steps on the first level.
        orders: orders of MAR's patches.
        drafted: whether there is a draft.

    Raises:
        ValueError: an option is out of range.
    """
    grid = [Way(f"{name} {TRAINING}", name) for name in generators]
    base = replace(base, use_cache=True, guess="repeat", parallel_level=None)
    for name, levels in generators.items():
        if "mar" in levels:
            _, *below = per_level("iterations", base.iterations, len(levels))
            for order in orders:
                for steps in iterations:
                    options = replace(base, iterations=[steps, *below], order=order)
                    grid.append(Way(f"{name} {steps} steps, {order}", name, options))
            continue
        ways = {"sequential": replace(base, decoding="sequential"), "no cache": replace(base, use_cache=False)}
        if len(levels) > 1:
            guesses = ["repeat", "draft"] if drafted else ["repeat"]
            ways |= {f"jacobi, {guess}": replace(base, decoding="jacobi", guess=guess) for guess in guesses}
        grid += [Way(f"{name} {way}", name, options) for way, options in ways.items()]
    return grid


def validation_canvases(datamodule: LightningDataModule, count: int) -> list[Batch]:
    """Return the first ``count`` canvases of the validation data, in batches; none if the data have no canvases."""
    if not count:
        return []
    datamodule.prepare_data()
    datamodule.setup("validate")
    found: list[Batch] = []
    for batch in datamodule.val_dataloader():
        if "canvas" not in batch:
            return []
        left = count - sum(len(each["canvas"]) for each in found)
        kept: Batch = {"canvas": batch["canvas"][:left]}
        if "label" in batch:
            kept["label"] = batch["label"][:left]
        if "start" in batch:
            kept["start"] = batch["start"][:left]
        found.append(kept)
        if len(batch["canvas"]) >= left:
            break
    return found


class Operators(TorchDispatchMode):
    """Counts the operators that are dispatched."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operator and run it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass(kw_only=True)
class FractalBench:
    """Measures ways at several numbers of patches.

    Attributes:
        networks: the networks, on their device.
        batch_size: number of canvases that are sampled together.
        train_batch_size: number of canvases of a training step.
        repeats: number of rounds, in each of which every way takes its turn.
        uncached: largest number of patches at which AR is sampled without a cache.
        canvases: batches of the validation data, for the likelihood.
        passes: number of passes over which the likelihood is averaged.
        unit: unit of the reported likelihood, ``bits_per_dim`` or ``nats_per_step``.
        nats: nats of a column that are one of this unit.
    """

    networks: Networks
    batch_size: int
    train_batch_size: int
    repeats: int
    uncached: int
    canvases: list[Batch] = field(default_factory=list)
    passes: int = 1
    unit: str = "nats_per_step"
    nats: float = 1.0

    def rows(
        self, patches: Sequence[int], grid: Sequence[Way], unfinished: Path, settings: Mapping[str, Any]
    ) -> dict[str, Row]:
        """Measure each way at each number of patches; return name -> its description and its numbers.

        Measurements that the file ``unfinished`` already holds are not repeated.

        Raises:
            ValueError: a number of patches does not fit the networks.
        """
        # 1. the measurements: of each number of patches the rounds, in which the cases take turns
        widths = {count: self.networks.width(count) for count in patches}
        at = lru_cache(maxsize=1)(self.networks.at)
        runs: dict[str, Callable[[], Numbers]] = {}
        for count, width in widths.items():
            chosen = [case for case in grid if self._is_measured(case, count)]
            for number in range(self.repeats + 1):
                for case in chosen:
                    runs[f"{count}, {case.label}, {number}"] = partial(self._run, at, case, width, number)
            for case in chosen:
                if self._has_likelihood(case):
                    runs[f"{count}, {case.label}, quality"] = partial(self._likelihood, at, case, width)
        # 2. take them
        weights = [identity(each) for each in self.networks.given()]
        canvases = of_tensors({str(i): batch["canvas"] for i, batch in enumerate(self.canvases)})
        known = f"{settings} {grid} {weights} {canvases} {self.passes} {self.networks.own.no_class.device.type}"
        timings = measured(runs, unfinished, known)
        # 3. a row for each case
        return {
            f"{count} patches, {case.label}": {**self._described(case), **self._row(timings, count, case)}
            for count in patches
            for case in grid
            if f"{count}, {case.label}, 0" in timings
        }

    def _is_measured(self, case: Way, count: int) -> bool:
        """Return whether a way is measured at a number of patches; print it if it has more steps than patches."""
        steps = self._described(case).get("steps", 0)
        if isinstance(steps, int) and steps > count:
            print(f"{count} patches, {case.label}: left out, as more steps than patches are the same computation")
            return False
        return case.options is None or case.options.use_cache or count <= self.uncached

    def _described(self, case: Way) -> Row:
        """Return the description of a way: its network, and for MAR the steps of the first level and the order."""
        if case.options is None or "mar" not in self.networks.generators[case.network]:
            return {"kind": case.network}
        steps, *_ = per_level("iterations", case.options.iterations, len(self.networks.own.levels))
        return {"kind": case.network, "steps": steps, "order": case.options.order}

    def _run(self, at: Callable[[int], dict[str, Fractal]], case: Way, width: int, number: int) -> Numbers:
        """Run a way once and return its numbers; run 0 warms up, and counts parameters and operators, not seconds."""
        # 1. what the way does: a step of training, or sampling
        network = at(width)[case.network]
        report = GenerationReport()
        if case.options is None:
            work = partial(train_step, network, self.train_batch_size, width, number)
        else:
            work = partial(
                sample,
                network,
                case.options,
                batch_size=self.batch_size,
                width=width,
                seed=number,
                draft=self.networks.draft,
                report=report,
            )
        # 2. run 0 counts
        if not number:
            with Operators() as operators:
                work()
            parameters = sum(parameter.numel() for parameter in network.parameters())
            return {"parameters": parameters, "operators": operators.count}
        # 3. the others are timed
        seconds = clock(network.no_class.device)
        start = seconds()
        work()
        took = report.summary()
        shown = {name: took[name] for name in ("passes_per_patch", "accepted_per_pass") if name in took}
        return {"seconds": seconds() - start} | shown

    def _has_likelihood(self, case: Way) -> bool:
        """Return whether the likelihood of a way can be measured: with trained weights, for AR and random orders."""
        if case.options is None or not self.canvases or case.network not in self.networks.trained_ones():
            return False
        return "mar" not in self.networks.generators[case.network] or case.options.order == "random"

    def _likelihood(self, at: Callable[[int], dict[str, Fractal]], case: Way, width: int) -> Numbers:
        """Return the mean negative log-likelihood of the validation data, by the steps of a way, in the unit."""
        network, options = at(width)[case.network], case.options
        assert options is not None
        levels = len(network.levels)
        steps = partial(
            StepMasking,
            per_level("iterations", options.iterations, levels),
            per_level("schedule", options.schedule, levels),
        )
        passes = 1 if network.exact_likelihood else self.passes
        nats = []
        for batch in self.canvases:
            canvas, label = batch["canvas"][..., :width].to(network.no_class.device), batch.get("label")
            label = label.to(canvas.device) if label is not None and network.num_classes else None
            start = batch["start"].to(canvas.device) if "start" in batch else None
            of_passes = network.nll_of_passes(canvas, label, passes, seed=0, start=start, masking=steps)
            nats.append(of_passes.mean(0) / canvas.shape[3])
        return {self.unit: torch.cat(nats).mean().item() / self.nats}

    def _row(self, found: Mapping[str, Numbers], count: int, case: Way) -> Numbers:
        """Return medians over the rounds; the ratio to the reference is the median of the ratios within rounds."""
        rounds = [found[f"{count}, {case.label}, {number}"] for number in range(1, self.repeats + 1)]
        references = [found[f"{count}, {case.reference}, {number}"] for number in range(1, self.repeats + 1)]
        row: Numbers = {"patches": count, **found[f"{count}, {case.label}, 0"]}
        canvases = self.train_batch_size if case.options is None else self.batch_size
        row["seconds"] = median(each["seconds"] for each in rounds) / canvases
        pairs = zip(rounds, references, strict=True)
        row["ratio"] = median(each["seconds"] / reference["seconds"] for each, reference in pairs)
        row["seconds_min"], row["seconds_max"] = (f(each["seconds"] for each in rounds) / canvases for f in (min, max))
        for name in rounds[0].keys() - {"seconds"}:
            row[name] = median(each[name] for each in rounds)
        return row | found.get(f"{count}, {case.label}, quality", {})


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock in seconds: CPU time with one thread, which other programs hardly change; otherwise wall time."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return process_time
    return Stopwatch(device, profile=False).now


def labels_of(network: Fractal, count: int) -> Tensor | None:
    """Return the classes in turn as labels, int64 ``[B]``, or None if the network has no classes."""
    device = network.no_class.device
    return torch.arange(count, device=device) % network.num_classes if network.num_classes else None


def train_step(network: Fractal, batch_size: int, width: int, seed: int) -> None:
    """Run a forward and a backward pass over random canvases."""
    device = network.no_class.device
    shape = (batch_size, network.codec.channels, network.sizes[0][0], width)
    canvas = torch.randint(0, network.codec.alphabet, shape, generator=torch.Generator().manual_seed(seed))
    network.train()
    with torch.enable_grad():
        network(canvas.to(device, torch.uint8), labels_of(network, batch_size)).loss.backward()
    network.zero_grad(set_to_none=True)
    network.eval()


def sample(
    network: Fractal,
    options: Generation,
    *,
    batch_size: int,
    width: int,
    seed: int,
    draft: Fractal | None,
    report: GenerationReport,
) -> None:
    """Sample all canvases together, each in a single window."""
    generate(
        network,
        labels_of(network, batch_size),
        options,
        batch_size=batch_size,
        length=width,
        window=width,
        seed=seed,
        draft=draft,
        report=report,
    )
