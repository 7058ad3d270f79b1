"""Training and sampling speed of the published FractalGen models (random weights), with the share of each level.

    python benchmarks/image_speed.py [--models fractalar_in64 fractalmar_in64] [--batches 1 8] [--device cuda]

Prints a Markdown table. Memory is the peak of the device, or of the process on a CPU. With --patches models are cut to
a smaller canvas, for a quick look.
"""

from __future__ import annotations

import torch
from measuring import Clock, memory, option_parser, shares, surroundings

from litscale.models.fractal import Fractal, Generation, generate
from litscale.models.fractal.ar import AR
from litscale.models.fractal.checkpoints import official_arguments
from litscale.models.fractal.head import CategoricalHead

ITERATIONS = {"in64": [64, 16], "in256": [64, 16, 16]}


def watch(model: Fractal, clock: Clock) -> None:
    """Measure the time of each level's generator and of the leaf, in one pass and in sampling."""
    for depth, level in enumerate(model.levels):
        name, generator = f"level {depth}", level.generator
        clock.watch_methods(generator, name, "forward")
        if isinstance(generator, AR):
            clock.watch_made(generator, "stepper", name, "feed", "condition")
        if level.guide_head is not None:
            watch_head(name, level.guide_head, clock)
    watch_head("leaf", model.leaf, clock)


def watch_head(name: str, head: CategoricalHead, clock: Clock) -> None:
    """Measure the time of a head in one pass and in sampling."""
    clock.watch_methods(head, name, "forward")
    clock.watch_made(head, "stepper", name, "feed", "logits")


def row(name: str, what: str, batch: int, seconds: float, parts: dict[str, float], device: str) -> None:
    """Print one line of the table; the time that is in no part is gathering, patchifying and the backward pass."""
    numbers = f"{batch} | {seconds:.3g} | {seconds / batch:.3g} | {shares(parts)} | {memory(device):.1f}"
    print(f"| {name} | {what} | {numbers} |", flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["fractalar_in64", "fractalmar_in64"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--warm-ups", type=int, default=1, help="runs before those that are measured")
    parser.add_argument("--grad-checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--patches", type=int, help="patches on a side of the first level, instead of the published 16")
    parser.add_argument("--skip", nargs="*", default=[], choices=["train", "sample"])
    options = parser.parse_args()
    device, precision = options.device, getattr(torch, options.precision)
    print(surroundings(device, options.precision) + "\n")
    print("| model | what | batch | seconds | seconds per image | share of the forward parts | GB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        torch.manual_seed(0)
        arguments = official_arguments(name) | {"grad_checkpointing": options.grad_checkpointing}
        if options.patches is not None:
            side = options.patches * arguments["sizes"][1][0]
            arguments["sizes"][0] = (side, side)
        # 1. the published model with random weights, its parts watched by a clock
        model = Fractal(**arguments).to(device)
        clock = Clock(device)
        watch(model, clock)
        side = model.sizes[0][0]
        for batch in options.batches:
            # 2. a training step and a sample of a batch of noise
            canvas = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=device)
            label = torch.arange(batch, device=device)

            def train(canvas: torch.Tensor = canvas, label: torch.Tensor = label, model: Fractal = model) -> None:
                model.train().zero_grad()
                with torch.autocast(device, precision, enabled=precision != torch.float32):
                    loss = model(canvas, label).loss
                loss.backward()

            def sample(label: torch.Tensor = label, model: Fractal = model, name: str = name) -> None:
                with torch.autocast(device, precision, enabled=precision != torch.float32):
                    generate(model, label, Generation(iterations=ITERATIONS[name.split("_")[-1]], cfg=2.0), seed=0)

            # 3. a line of the table for each
            for what, run in (("train", train), ("sample", sample)):
                if what not in options.skip:
                    row(name, what, batch, *clock.measure(run, options.repeats, options.warm_ups), device)


if __name__ == "__main__":
    main()
