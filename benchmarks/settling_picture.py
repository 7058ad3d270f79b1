"""Draw a sample coloured by the pass in which exact parallel decoding settled each cell.

    python benchmarks/settling_picture.py runs/demo docs/images/settling.png [--seed 0] [--checkpoint last]

The run is of a `lit_models.LitFractal` on piano rolls whose levels are AR from level 1 on. Prints passes per patch.
"""

from __future__ import annotations

from typing import ClassVar
from unittest.mock import patch

import matplotlib
import torch
from measuring import option_parser
from torch import Tensor

from lit_models import load_run
from litscale.models.fractal import Fractal, GenerationReport, generate, generation_recursion
from litscale.models.fractal.drawing import Canvases
from litscale.models.fractal.jacobi import ParallelCanvases

matplotlib.use("Agg")
from matplotlib import pyplot as plt


class Recorded(ParallelCanvases):
    """Records, for each canvas that is decoded in parallel, after which pass each of its cells no longer changed."""

    settled: ClassVar[list[Tensor]] = []

    def begin(self, rows: Tensor | None, work: Canvases) -> None:
        """Start to count passes."""
        super().begin(rows, work)
        self.number = 0
        self.passes = torch.zeros_like(self._take("symbols", None))

    def step(self, active: list[int]) -> list[int]:
        """Run a pass, and record the number of the pass that settled each cell."""
        before = self._take("symbols", None)
        settled = super().step(active)
        self.number += 1
        after = self._take("symbols", None)
        first = torch.where(after != before, self.layout.turn, len(self.layout.turn) - 1).amin(1, keepdim=True)
        new = (self.passes == 0) & (self.layout.turn <= first)
        self.passes = torch.where(new, self.number, self.passes)
        if settled:
            Recorded.settled.append(self.layout.to_cells(self.passes)[0, 0])
        return settled


def main() -> None:
    """Sample a piece and draw the picture."""
    parser = option_parser(__doc__)
    parser.add_argument("run")
    parser.add_argument("picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="last")
    options = parser.parse_args()
    module, report = load_run(options.run, options.checkpoint), GenerationReport()
    network = module.network
    assert isinstance(network, Fractal)
    with patch.object(generation_recursion, "ParallelCanvases", Recorded):
        roll = generate(network, seed=options.seed, report=report)[0, 0]
    passes = torch.cat(Recorded.settled, dim=1)
    assert passes.shape == roll.shape, "the patches of level 1 must be columns"
    print(f"{report.summary()['passes_per_patch']:.2f} passes per patch of {roll.shape[0]} cells")

    figure, axes = plt.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    axes[0].imshow(roll > 0, origin="lower", aspect="auto", cmap="Greys", interpolation="nearest")
    axes[0].set_ylabel("pitch")
    shown = axes[1].imshow(passes, origin="lower", aspect="auto", cmap="viridis", interpolation="nearest")
    axes[1].set(xlabel="step", ylabel="pitch")
    figure.colorbar(shown, ax=axes[1], label="pass that settled the cell")
    figure.savefig(options.picture, dpi=100)


if __name__ == "__main__":
    main()
