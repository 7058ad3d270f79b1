"""Time of AdamW's update, fused and not, on the same weights and gradients.

    python benchmarks/optimizer_speed.py [--device cuda] [--blocks 10] [--width 512]

Prints a Markdown table. Times are medians; the ratio is the median of the ratios of neighbouring updates: above 1 the
fused one is faster.
"""

from __future__ import annotations

import statistics

import torch
from measuring import option_parser, paired, ratio, surroundings

from litscale.models.layers.blocks import Stack, StackConfig


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = {}
    for name, fused in (("fused", True), ("plain", False)):
        network = Stack(StackConfig(options.width, options.blocks, 8), "vit").to(options.device)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        runs[name] = torch.optim.AdamW(network.parameters(), 1e-4, fused=fused).step
    count = sum(parameter.numel() for parameter in network.parameters())
    times = paired(runs, options.repeats, options.device)
    print(surroundings(options.device) + "\n")
    print("| parameters | fused: ms | plain: ms | plain / fused |")
    print("| --- | --- | --- | --- |")
    milliseconds = " | ".join(f"{1e3 * statistics.median(times[name]):.1f}" for name in runs)
    print(f"| {count / 1e6:.1f} M | {milliseconds} | {ratio(times['plain'], times['fused']):.1f} |")


if __name__ == "__main__":
    main()
