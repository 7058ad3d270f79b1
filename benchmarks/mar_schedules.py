"""What it costs MAR levels to draw several patches at once, by schedule, on scikit-learn's digits.

    python benchmarks/mar_schedules.py runs/digits_mar

Patches that one step reveals are drawn independently of each other. If a patch of which m are still hidden takes L(m)
bits, a step from m to m' hidden patches takes (m - m') L(m) bits in place of L(m) + L(m - 1) + ... + L(m' + 1). The sum
of the differences over all steps is what a schedule costs; the best schedule is found by dynamic programming (arXiv
2110.02037). L is measured on the validation images and smoothed by a parabola.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, cast

import numpy as np
import torch
from measuring import option_parser, surroundings
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import DigitsDataModule
from lit_models import load_run
from litscale.models.fractal import Fractal
from litscale.models.fractal.masking import SCHEDULES, Masking, masking_schedule
from litscale.models.fractal.terms import LossTerms


class FixedCount(Masking):
    """Hides ``count`` of the patches of each row of one level, and of other levels as many as the likelihood does."""

    def __init__(self, level: int, count: int, patches: int) -> None:
        self.level, self.fixed = level, (count - 1, patches)  # the stratum of that count alone
        super().__init__("likelihood", stratum=(0, 1) if level else self.fixed)

    def descend(self, patches: int, chosen: Tensor | None = None) -> None:
        """Go down a level as `Masking.descend` does; at the chosen level, fix how many patches are hidden."""
        super().descend(patches, chosen)
        self.level -= 1
        if self.level == 0:
            self.stratum = self.fixed


@torch.no_grad()
def bits_by_hidden(
    network: Fractal, canvas: Tensor, label: Tensor, *, level: int, patches: int, passes: int
) -> list[float]:
    """Measure the bits of the patches at one place of their level, by the number m of hidden ones, from 0 (unused) on.

    A parabola smooths the values. Together the ``patches`` places of any level are the whole image.
    """
    measured = []
    for count in range(1, patches + 1):
        nats = 0.0
        for _ in range(passes):
            terms = LossTerms()
            network._collect(canvas, network.root(canvas, label), FixedCount(level, count, patches), terms)
            nats += terms.nats_per_canvas(len(canvas)).mean().item() / passes
        measured.append(nats / patches / math.log(2))
    hidden = np.arange(1, patches + 1)
    smooth = np.polyval(np.polyfit(hidden, measured, min(2, patches - 1)), hidden)
    return [0.0, *smooth.tolist()]


def cost(remaining: list[int], bits: list[float]) -> float:
    """Compute the bits that a schedule, the numbers of hidden patches after each step, loses by independent drawing."""
    return sum((m - left) * bits[m] - sum(bits[left + 1 : m + 1]) for m, left in pairwise(remaining))


def best(patches: int, steps: int, bits: list[float]) -> list[int]:
    """Find the schedule of so many steps that costs least."""
    found = {0: [0]}
    for _ in range(min(steps, patches)):
        found = {
            m: min(([m, *rest] for left, rest in found.items() if left < m), key=lambda path: cost(path, bits))
            for m in range(1, patches + 1)
            if any(left < m for left in found)
        }
    return found[patches]


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("run", help="folder of a run of configs/digits/fractal_mar.yaml")
    parser.add_argument("--steps", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--repeats", type=int, default=8, help="passes over the validation images for each number")
    options = parser.parse_args()
    torch.manual_seed(0)
    # 1. the network and the images
    network = load_run(options.run, "last").network
    assert isinstance(network, Fractal)
    data = DigitsDataModule(batch_size=512, size=cast("Literal[8, 16, 32]", network.sizes[0][0]))
    data.prepare_data()
    data.setup("validate")
    loader = data.val_dataloader()
    assert isinstance(loader, DataLoader)
    (batch,) = loader
    dims = network.sizes[0][0] * network.sizes[0][1] * network.codec.channels
    print(surroundings("cpu") + "\n")
    print("| level | patches | steps | cosine: bits per dim | linear | best | hidden after each step of the best |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for level, (canvas, patch) in enumerate(pairwise(network.sizes)):
        # 2. what a patch costs, by the number of hidden ones
        patches = canvas[0] * canvas[1] // (patch[0] * patch[1])
        bits = bits_by_hidden(
            network, batch["canvas"], batch["label"], level=level, patches=patches, passes=options.repeats
        )
        # 3. a line of the table for each number of steps
        for steps in (steps for steps in options.steps if steps < patches):
            ways = [masking_schedule([patches], steps, kind)[:, 0].tolist() for kind in SCHEDULES]
            ways.append(best(patches, steps, bits))
            lost = " | ".join(f"{cost(way, bits) / dims:.4f}" for way in ways)
            print(f"| {level} | {patches} | {steps} | {lost} | {', '.join(map(str, ways[-1][1:]))} |", flush=True)


if __name__ == "__main__":
    main()
