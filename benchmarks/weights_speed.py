"""Speed of a published FractalGen model (random weights) with small weights, as ratios within one run.

    python benchmarks/weights_speed.py [--model fractalar_in64] [--batches 1] [--cfgs 1 3] [--device cuda]

Prints two Markdown tables: the transformer layers alone, one token of each level for each time that a patch of the
first level needs it, and whole samples of few patches, decoded cell by cell. Times are medians, on a CPU in CPU
seconds; a ratio is the median of the ratios of neighbouring runs. What small weights cost in likelihood, `litscale
validate --model.generation.weights int8` says of a trained model.
"""

from __future__ import annotations

import statistics
from functools import partial

import torch
from measuring import cpu_now, option_parser, paired, ratio, surroundings

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.checkpoints import official_arguments
from litscale.models.layers.blocks import Stack
from litscale.models.small_weights import WEIGHTS, small_weights


def stacks(model: Fractal) -> dict[str, tuple[Stack, int, int]]:
    """Return the transformer, the width and the tokens for a patch of the first level, of each level and the leaf."""
    made, tokens = {}, 1
    for depth, level in enumerate(model.levels):
        rows, columns = level.generator.config.grid
        tokens *= rows * columns if depth else 1
        made[f"level {depth}"] = level.generator.blocks, level.generator.config.stack.width, tokens
    leaf = model.leaf
    return made | {"leaf": (leaf.blocks, leaf.codebook.shape[2], tokens * leaf.channels)}


@torch.no_grad()
def layers(model: Fractal, rows: int, repeats: int, device: str) -> dict[str, dict[str, list[float]]]:
    """Measure the layers by kind of weights and by level, with tokens one by one, in so many rows."""
    times: dict[str, dict[str, list[float]]] = {weights: {} for weights in WEIGHTS}
    for name, (stack, width, tokens) in stacks(model).items():
        x = torch.randn(rows, 1, width, device=device)
        passes = max(1, min(tokens, 8))  # as many as make a time long enough

        def run(stack: Stack = stack, x: torch.Tensor = x, passes: int = passes) -> None:
            for _ in range(passes):
                stack(x)

        for weights in WEIGHTS:
            times[weights][name] = []
        for repeat in range(-1, repeats):
            for weights in WEIGHTS:
                with small_weights(model, weights):  # a level may have no large layer
                    taken = paired({weights: run}, 1, device, warm_ups=0, clock=cpu_now)[weights][0]
                if repeat >= 0:
                    times[weights][name].append(taken / passes * tokens)
    return times


def samples(model: Fractal, batch: int, cfg: float, repeats: int, device: str) -> dict[str, list[float]]:
    """Measure whole samples by kind of weights."""
    label = torch.arange(batch, device=device)
    ways = {weights: Generation(4, cfg=cfg, decoding="sequential", weights=weights) for weights in WEIGHTS}
    runs = {weights: partial(generate, model, label, way, seed=0) for weights, way in ways.items()}
    return paired(runs, repeats, device, clock=cpu_now)


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--model", default="fractalar_in64")
    parser.add_argument("--patches", type=int, default=2, help="patches on a side of the first level in samples")
    parser.add_argument("--cfgs", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    # 1. the published model, cut to a small canvas, which leaves its layers as they are
    arguments = official_arguments(options.model)
    side = options.patches * arguments["sizes"][1][0]
    arguments["sizes"][0] = (side, side)
    model = Fractal(**arguments).to(options.device).eval()
    print(surroundings(options.device))
    # 2. the layers alone
    names = list(stacks(model))
    print(f"\n| batch | cfg | weights | {' | '.join(f'{name}: ms' for name in names)} | all: ms | ratio to float32 |")
    print("| --- " * (5 + len(names)) + "|")
    for batch in options.batches:
        for cfg in options.cfgs:
            by_level = layers(model, batch * (1 if cfg == 1 else 2), options.repeats, options.device)
            whole = {
                weights: [sum(each) for each in zip(*by_level[weights].values(), strict=True)] for weights in WEIGHTS
            }
            for weights in WEIGHTS:
                taken = [*by_level[weights].values(), whole[weights]]
                cells = " | ".join(f"{1e3 * statistics.median(each):.3g}" for each in taken)
                compared = ratio(whole[weights], whole["float32"])
                print(f"| {batch} | {cfg:g} | {weights} | {cells} | {compared:.2f} |", flush=True)
    # 3. whole samples
    print(f"\nSamples of {side} x {side} pixels:\n\n| batch | cfg | weights | seconds | ratio to float32 |")
    print("| --- " * 5 + "|")
    for batch in options.batches:
        for cfg in options.cfgs:
            times = samples(model, batch, cfg, options.repeats, options.device)
            for weights, each in times.items():
                compared = ratio(each, times["float32"])
                print(f"| {batch} | {cfg:g} | {weights} | {statistics.median(each):.3g} | {compared:.2f} |", flush=True)


if __name__ == "__main__":
    main()
