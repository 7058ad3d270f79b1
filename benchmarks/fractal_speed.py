"""Training and sampling speed of AR and MAR generators, as ratios within one run.

    python benchmarks/fractal_speed.py [--device cuda] [--width 256] [--blocks 6] [--repeats 7]

Prints Markdown tables. Times are medians; a ratio is the median of the ratios of neighbouring runs, so that a drift of
the machine's speed cancels out.
"""

from __future__ import annotations

import statistics
from contextlib import suppress
from functools import partial

import torch
from measuring import option_parser, paired, ratio, surroundings

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.compiled import check_compiler
from litscale.models.fractal.masking import Masking
from litscale.models.fractal.terms import LossTerms


class AllHidden(Masking):
    """Hides every patch, so that MAR sends as many patches down as AR."""

    def __call__(self, rows: int, patches: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return a mask that hides every patch, weights of 1 and the number of patches of all rows."""
        mask = torch.ones(rows, patches, dtype=torch.bool, device=device)
        return mask, torch.ones(rows, device=device), mask.numel()


def build(generator: str, patches: int, width: int, blocks: int, device: str) -> Fractal:
    """Build a level over ``patches`` patches of 8 cells, whose cells a small level of the same kind predicts."""
    torch.manual_seed(0)
    sizes = [(8, patches), (8, 1), (1, 1)]
    kinds = [generator, generator]
    return Fractal(sizes, kinds, [width, 64, 32], [blocks, 1, 0], [width // 32, 2, 1], codec="binary").to(device)


def step(model: Fractal, canvas: torch.Tensor, masking: Masking) -> None:
    """Run forward and backward passes, in which MAR levels hide what a masking chooses."""
    model.zero_grad()
    terms = LossTerms()
    model._collect(canvas, model.root(canvas, None), masking, terms)
    terms.output(model.channel_weights).loss.backward()


def training(width: int, blocks: int, repeats: int, device: str) -> None:
    """Print the time of forward and backward passes, AR against MAR of equal width and depth."""
    print(
        "\n| patches | batch | AR parameters | MAR parameters | AR ms | MAR / AR, all hidden | MAR / AR, as trained |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for patches, batch in ((64, 16), (256, 4), (1024, 1)):
        # 1. both models, and one step of each kind
        canvas = torch.randint(0, 2, (batch, 1, 8, patches), dtype=torch.uint8, device=device)
        models = {kind: build(kind, patches, width, blocks, device) for kind in ("ar", "mar")}
        runs = {
            "ar": partial(step, models["ar"], canvas, Masking("training")),
            "hidden": partial(step, models["mar"], canvas, AllHidden("training")),
            "trained": partial(step, models["mar"], canvas, Masking("training")),
        }
        times = paired(runs, repeats, device)
        # 2. a line of the table
        counts = [f"{sum(p.numel() for p in models[kind].parameters()) / 1e6:.2f} M" for kind in ("ar", "mar")]
        print(
            f"| {patches} | {batch} | {counts[0]} | {counts[1]} | {1e3 * statistics.median(times['ar']):.0f} | "
            f"{ratio(times['hidden'], times['ar']):.2f} | {ratio(times['trained'], times['ar']):.2f} |",
            flush=True,
        )


def sampling(width: int, blocks: int, repeats: int, device: str) -> None:
    """Print the time of a sample: AR in several ways, compiled if torch can compile, and MAR by number of steps."""
    ways = {
        "sequential": Generation(decoding="sequential"),
        "no cache": Generation(use_cache=False),
        "jacobi": Generation(decoding="jacobi"),
    }
    with suppress(ValueError):
        check_compiler(device)
        ways["compiled"] = Generation(decoding="sequential", compile=True)
    steps = {f"MAR {count}": Generation(iterations=[count, 8]) for count in (8, 16, 64)}
    print(f"\n| patches | AR: ms | {' | '.join(f'{name} / AR' for name in [*ways, *steps][1:])} |")
    print("| --- " * (len(ways) + len(steps) + 1) + "|")
    for patches in (64, 256, 1024):
        ar, mar = (build(kind, patches, width, blocks, device) for kind in ("ar", "mar"))
        runs = {
            name: partial(generate, model, options=options, seed=0)
            for model, group in ((ar, ways), (mar, steps))
            for name, options in group.items()
        }
        times = paired(runs, max(1, repeats // (1 + patches // 256)), device)
        first, *others = times
        ratios = " | ".join(f"{ratio(times[name], times[first]):.2f}" for name in others)
        print(f"| {patches} | {1e3 * statistics.median(times[first]):.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(surroundings(options.device))
    print(f"width {options.width}, {options.blocks} blocks; median of {options.repeats} runs in turn")
    training(options.width, options.blocks, options.repeats, options.device)
    sampling(options.width, options.blocks, options.repeats, options.device)
