"""Whether a feature extractor tells two models of Fashion-MNIST apart, such as a target from its draft.

    FASHION_MNIST=FOLDER python benchmarks/feature_power.py runs/fashion/var_target runs/fashion/var_draft [--seeds 5]

Both models generate the same classes from the same seeds, and are compared with the validation pictures. Prints a
Markdown table: each score's mean over the seeds with its standard error, and the mean difference in standard errors of
the differences. A score whose difference is beyond three of these tells the models apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import fmean, stdev
from typing import cast

import torch
from measuring import option_parser, surroundings
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import FashionMNISTDataModule
from lit_models import load_run
from lit_models.generating import GeneratingModule
from litscale.cli.allocator import keep_freed_memory
from litscale.metrics import FashionFeatures, FeatureStatistics, PrecisionRecall
from litscale.metrics.features import extract
from litscale.metrics.fid import Statistics, frechet_distance


def features_of(extractor: FashionFeatures, canvases: Tensor) -> tuple[Tensor, Tensor]:
    """Return features ``[N, D]`` and logits ``[N, K]`` of canvases ``[N, C, H, W]``, computed batch by batch."""
    features, logits = zip(*(extract(extractor, part) for part in canvases.split(500)), strict=True)
    return torch.cat(features), torch.cat(cast("tuple[Tensor, ...]", logits))


def statistics_of(features: Tensor) -> Statistics:
    """Return mean and covariance of features ``[N, D]``."""
    metric = FeatureStatistics(features.shape[1])
    metric.update(features)
    return metric.compute()


def samples(module: GeneratingModule, seed: int, count: int, batch_size: int) -> Tensor:
    """Generate so many canvases from a seed, of all classes in turn."""
    parts = [
        module.generate(index % module.label_classes(), seed=seed, index=index)
        for index in torch.arange(count).split(batch_size)
    ]
    return torch.cat(parts)


def scores(extractor: FashionFeatures, canvases: Tensor, real: Tensor) -> dict[str, float]:
    """Score samples, whose classes are taken in turn, against real features ``[M, D]``."""
    features, logits = features_of(extractor, canvases)
    shares = PrecisionRecall()
    shares.update(features, torch.arange(len(features)))
    shares.reference = real
    wanted = torch.arange(len(features)) % logits.shape[1]
    return {
        "Frechet distance": float(frechet_distance(statistics_of(features), statistics_of(real))),
        **{name: float(value) for name, value in shares.compute().items()},
        "class accuracy": float((logits.argmax(1) == wanted).float().mean()),
    }


def error(values: Sequence[float]) -> float:
    """Return the standard error of a mean, infinity for a single value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else inf


@torch.no_grad()
def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("runs", nargs=2, help="two run folders")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--num-images", type=int, default=1000, help="of each seed, a multiple of ten")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--size", type=int, default=32, choices=(16, 32), help="of the pictures")
    options = parser.parse_args()
    keep_freed_memory()
    extractor = FashionFeatures(size=options.size)
    data = FashionMNISTDataModule(size=options.size, batch_size=500)
    data.setup("validate")
    loader = data.val_dataloader()
    assert isinstance(loader, DataLoader)
    real, _ = features_of(extractor, torch.cat([batch["canvas"] for batch in loader]))
    found: list[list[dict[str, float]]] = []  # of each run, of each seed
    for run in options.runs:
        module = cast("GeneratingModule", load_run(run, "last"))
        drawn = (samples(module, seed, options.num_images, options.batch_size) for seed in range(options.seeds))
        found.append([scores(extractor, canvases, real) for canvases in drawn])
    print(
        f"{surroundings('cpu')}, {options.seeds} seeds of {options.num_images} images, {len(real)} real ones; the "
        f"classifier recognises {extractor.held_out_accuracy:.1%} of the test pictures\n"
    )
    print(f"| score | {' | '.join(options.runs)} | difference | in standard errors |")
    print("| --- | --- | --- | --- | --- |")
    for name in found[0][0]:
        first, second = ([row[name] for row in rows] for rows in found)
        differences = [b - a for a, b in zip(first, second, strict=True)]
        cells = [f"{fmean(values):.4g} ± {error(values):.2g}" for values in (first, second, differences)]
        apart, errors = abs(fmean(differences)), error(differences)
        print(f"| {name} | {' | '.join(cells)} | {apart / errors if errors else inf if apart else 0:.1f} |")


if __name__ == "__main__":
    main()
