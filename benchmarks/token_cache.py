"""What MAR's token cache saves: CPU time of sampling, by the number of steps of which one computes all patches.

    python benchmarks/token_cache.py runs/digits_mar

Other options of sampling are those of the run. Its quality, ``litscale test --model.generation.token_cache 4`` says.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from measuring import cpu_now, option_parser, paired, ratio, surroundings

from lit_models import LitFractal, load_run
from litscale.models.fractal import Fractal, generate


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("run", help="folder of a run of a network with MAR levels")
    parser.add_argument("--periods", nargs="+", type=json.loads, default=[2, 4, [4, 1], [16, 1]], metavar="PERIOD")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # 1. the network and the ways to sample from it, the first without a cache
    module = load_run(options.run, "last")
    assert isinstance(module, LitFractal)
    network = module.network
    assert isinstance(network, Fractal)
    ways = {str(period): replace(module.generation, token_cache=period) for period in (1, *options.periods)}
    print(surroundings("cpu") + "\n")
    print("| batch | token_cache | s per sample | times as fast |")
    print("| --- | --- | --- | --- |")
    for batch in options.batches:
        # 2. all ways take turns
        label = torch.arange(batch) % network.num_classes if network.num_classes else None
        runs = {name: partial(generate, network, label, way, batch_size=batch, seed=0) for name, way in ways.items()}
        times = paired(runs, options.repeats, "cpu", clock=cpu_now)
        # 3. a line of the table for each
        for name, seconds in times.items():
            gain = ratio(times["1"], seconds)
            print(f"| {batch} | {name} | {median(seconds) / batch:.4f} | {gain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
