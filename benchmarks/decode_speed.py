"""Time of speculative decoding against the target alone, with acceptance forced to given rates.

    python benchmarks/decode_speed.py [--published] [--device cuda] [--bf16] [--batches 1 8 32] [--gammas 1 2 4]

The networks have random weights, so a coin accepts scales in place of a rule; it says from which acceptance rate on
speculation pays. By default the shapes are small enough for a CPU; ``--published`` takes those of VAR-d16 and VAR-d30
(2.3 billion parameters, 9 GB). Prints Markdown tables. Times are medians; a ratio is the median of the ratios of
neighbouring runs, so that a drift of the machine's speed cancels out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import count, pairwise

import torch
from measuring import memory, option_parser, paired, ratio, surroundings

from litscale.models.sdvar import Decoder, DecodeReport, Forced, Speculative, TargetOnly
from litscale.models.var import VAR, VQVAE, VARGeneration

RATES = (0.0, 0.5, 0.8, 1.0)
PUBLISHED = {"draft": (16, 1024, 16), "target": (30, 1920, 30)}  # depth, width, heads


def measure(draft: VAR, target: VAR, batch: int, gamma: int, options: argparse.Namespace) -> list[float]:
    """Print the rows of one batch and gamma, and return the speed-up at each rate."""
    decoders: dict[str, Decoder] = {"target": TargetOnly(target)}
    for rate in RATES:
        decoders[f"ragged {rate}"] = Speculative(draft, target, gamma=gamma, acceptance=Forced(rate))
        if batch > 1 and options.minimum:
            rule = Speculative(draft, target, gamma=gamma, acceptance=Forced(rate), ragged=False)
            decoders[f"minimum {rate}"] = rule
    labels = [i % target.num_classes for i in range(batch)]
    reports: dict[str, DecodeReport] = {}

    def run(name: str, seeds: Iterator[int]) -> None:
        seed = next(seeds)
        with torch.autocast(options.device, torch.bfloat16) if options.bf16 else nullcontext():
            report = decoders[name].decode(labels, VARGeneration(cfg=options.cfg), seed).report
        if seed >= 0:  # those below are of the warm-up
            reports[name] = report + reports[name] if name in reports else report

    runs = {name: partial(run, name, count(-options.warm_ups)) for name in decoders}
    times = paired(runs, options.repeats, options.device, options.warm_ups)
    alone = 1e3 * statistics.median(times["target"]) / batch
    speedups = []
    for rate in RATES:
        ragged, minimum = f"ragged {rate}", f"minimum {rate}"
        calls = reports[ragged].target_calls / reports[ragged].images
        passes = reports[ragged].target_passes / options.repeats
        speedups.append(ratio(times["target"], times[ragged]))
        other = "- | -"
        if minimum in reports:
            slowest = reports[minimum].target_calls / reports[minimum].images
            other = f"{slowest:.2f} | {ratio(times['target'], times[minimum]):.2f}"
        ours = 1e3 * statistics.median(times[ragged]) / batch
        print(
            f"| {batch} | {gamma} | {rate} | {calls:.2f} | {passes:.2f} | {alone:.1f} | {ours:.1f} | "
            f"{speedups[-1]:.2f} | {other} |",
            flush=True,
        )
    return speedups


def break_even(speedups: list[float]) -> str:
    """Return the acceptance rate at which the speed-up reaches 1, interpolated linearly between the measured ones."""
    if speedups[0] >= 1:
        return "0"
    for (low, slow), (high, fast) in pairwise(zip(RATES, speedups, strict=True)):
        if slow < 1 <= fast:
            return f"{low + (high - low) * (1 - slow) / (fast - slow):.2f}"
    return "never"


def build(shape: tuple[int, int, int], vqvae: VQVAE, options: argparse.Namespace) -> VAR:
    """Build a network with random weights."""
    depth, width, heads = shape
    model = VAR(vqvae, num_classes=1000, depth=depth, width=width, heads=heads)
    return model.to(options.device, torch.bfloat16 if options.bf16 else torch.float32).eval()


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--published", action="store_true", help="shapes of VAR-d16 and VAR-d30")
    parser.add_argument("--draft", type=int, nargs=3, default=(4, 128, 4), metavar=("DEPTH", "WIDTH", "HEADS"))
    parser.add_argument("--target", type=int, nargs=3, default=(12, 384, 6), metavar=("DEPTH", "WIDTH", "HEADS"))
    parser.add_argument("--patch-nums", type=int, nargs="+", default=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--batches", type=int, nargs="+", default=(1,))
    parser.add_argument("--gammas", type=int, nargs="+", default=(1, 2, 4, 9))
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 weights and autocast; the tokenizer in float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-ups", type=int, default=1, help="rounds before those that are measured")
    parser.add_argument("--no-minimum", dest="minimum", action="store_false", help="leave out the minimum over rows")
    options = parser.parse_args()
    torch.manual_seed(0)
    vqvae = VQVAE(options.patch_nums, vocab=options.vocab, channels=32, multipliers=(1, 1), blocks=1)
    shapes = PUBLISHED if options.published else {"draft": options.draft, "target": options.target}
    draft, target = (build(shapes[name], vqvae, options) for name in ("draft", "target"))
    print(surroundings(options.device, "bfloat16" if options.bf16 else "float32"))
    print(f"(depth, width, heads): draft {tuple(shapes['draft'])}, target {tuple(shapes['target'])}")
    print(f"patch_nums {tuple(options.patch_nums)}, cfg {options.cfg}; median of {options.repeats} runs in turn\n")
    print(
        "| batch | gamma | acceptance | target calls per image | passes | target alone: ms per image | ms per image | "
        "speed-up | calls, minimum rule | speed-up, minimum rule |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    results = {
        (batch, gamma): measure(draft, target, batch, gamma, options)
        for batch in options.batches
        for gamma in options.gammas
    }
    print("\n| batch | gamma | break-even acceptance |\n| --- | --- | --- |")
    for (batch, gamma), speedups in results.items():
        print(f"| {batch} | {gamma} | {break_even(speedups)} |")
    print(f"\nat most {memory(options.device):.1f} GB of memory")
