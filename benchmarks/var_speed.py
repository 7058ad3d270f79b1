"""Sampling speed of the published VAR models (random weights), with the share of each scale.

    python benchmarks/var_speed.py [--models var_d16 var_d30] [--batches 1 32] [--device cuda] [--precision bfloat16]

Prints a Markdown table. A scale's share is that of the transformer; beside it stand those of the tokenizer's residual
chain and of its decoder. What is in no part is the drawing of tokens. Memory is the peak of the device, or of the
process on a CPU. With --patch-nums models get other scales, for a quick look.
"""

from __future__ import annotations

from typing import Any

import torch
from measuring import Clock, memory, option_parser, shares, surroundings

from litscale.models.var import PRESETS, VAR, VQVAE, VARGeneration, generate


def watch(model: VAR, clock: Clock) -> None:
    """Measure the time of each scale of the transformer, and of the tokenizer."""

    def scale(inputs: Any, condition: Any, cache: Any, first: int, **masks: Any) -> str:
        return f"scale {first}"

    clock.watch_methods(model, "classes", "condition")
    clock.watch_methods(model, scale, "extend")
    clock.watch_methods(model.vqvae.quantizer, "residual chain", "scale_input", "accumulate")
    clock.watch_methods(model.vqvae, "decoder", "decode")


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["var_d16", "var_d30"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="weights, autocast")
    parser.add_argument("--cfg", type=float, default=1.5, help="0 halves the work")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--warm-ups", type=int, default=1, help="runs before those that are measured")
    parser.add_argument("--patch-nums", type=int, nargs="+", help="instead of the published ones")
    options = parser.parse_args()
    device, precision = options.device, getattr(torch, options.precision)
    print(surroundings(device, options.precision) + f", cfg {options.cfg}\n")
    print("| model | batch | seconds | images per second | share of the parts | GB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        torch.manual_seed(0)
        # 1. the published model with random weights, its parts watched by a clock
        preset = PRESETS[name]
        vqvae = VQVAE(options.patch_nums or preset["patch_nums"])
        model = VAR(vqvae, preset["num_classes"], preset["depth"], shared_aln=preset.get("shared_aln", False))
        model.to(device, precision).eval()
        clock = Clock(device)
        watch(model, clock)
        for batch in options.batches:
            # 2. a batch of images, and its line of the table
            def run(model: VAR = model, batch: int = batch) -> None:
                with torch.autocast(device, precision, enabled=precision != torch.float32):
                    labels = [k % model.num_classes for k in range(batch)]
                    generate(model, labels, VARGeneration(cfg=options.cfg), seed=0)

            seconds, parts = clock.measure(run, options.repeats, options.warm_ups)
            numbers = f"{batch} | {seconds:.3g} | {batch / seconds:.3g} | {shares(parts)} | {memory(device):.1f}"
            print(f"| {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
