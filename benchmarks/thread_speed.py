"""Time of one sampling step of two transformer blocks with a cache, with one thread and with two.

    OMP_NUM_THREADS=2 python benchmarks/thread_speed.py [--widths 256 1024] [--rows 1 4]

Prints a Markdown table. Times are medians; the ratio is the median of the ratios of neighbouring runs: above 1 two
threads are faster. It depends on how busy the machine is, so the load is printed, too.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from functools import partial

import torch
from measuring import option_parser, paired, ratio, surroundings

from litscale.models.layers.blocks import Stack, StackConfig
from litscale.models.layers.kv_cache import KVCache

CACHED = 64  # tokens that each step attends to


def stepper(width: int, rows: int) -> Callable[[int], None]:
    """Return a function that runs four steps with a number of threads."""
    heads = width // 64
    stack = Stack(StackConfig(width, 2, heads), "llama")
    caches = [KVCache(CACHED + 1) for _ in stack]
    for cache in caches:
        cache.append(*torch.randn(2, rows, heads, CACHED, 64))
    token = torch.randn(rows, 1, width)

    def run(threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(4):
            stack(token, True, None, caches)
            for cache in caches:
                cache.truncate(CACHED)

    return run


@torch.no_grad()
def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256, 512, 1024, 2048])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(f"{surroundings('cpu')}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| width | rows | one thread: ms | two threads: ms | one / two |")
    print("| --- | --- | --- | --- | --- |")
    for width in options.widths:
        for rows in options.rows:
            run = stepper(width, rows)
            times = paired({"one": partial(run, 1), "two": partial(run, 2)}, options.repeats, "cpu")
            one, two = (250 * statistics.median(times[name]) for name in ("one", "two"))
            print(f"| {width} | {rows} | {one:.1f} | {two:.1f} | {ratio(times['one'], times['two']):.2f} |", flush=True)


if __name__ == "__main__":
    main()
