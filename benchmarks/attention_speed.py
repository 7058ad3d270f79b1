"""Time of VAR's scale-causal attention, forward and backward: a dense mask, a call for each scale, FlexAttention.

    python benchmarks/attention_speed.py [--device cuda] [--precision bfloat16] [--heads 4] [--batches 4 1]

Prints a Markdown table. Queries, keys and values lie in memory as the network makes them. Times are medians; a ratio is
the median of the ratios of neighbouring runs, dense mask / candidate: above 1 the candidate is faster.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import accumulate

import torch
from measuring import option_parser, paired, ratio, surroundings

from litscale.models.var.attention_times import attention_pass
from litscale.models.var.scale_attention import ATTENTIONS, scale_causal

SCALES = {
    "16 px": (1, 2, 3, 4),
    "64 px": (1, 2, 3, 4, 5, 6, 8),
    "256 px": (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    "512 px": (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
}


def step(qkv: torch.Tensor, may_attend: torch.Tensor, bounds: tuple[int, ...], attention: str, backward: bool) -> None:
    """Run one pass, with gradients if ``backward`` is set."""
    with torch.set_grad_enabled(backward):
        attention_pass(qkv if backward else qkv.detach(), scale_causal(attention, may_attend, bounds))


def available(run: Callable[[], None]) -> str | None:
    """Return why a candidate cannot run, None if it can."""
    try:
        run()
    except ValueError as error:  # with which the network refuses FlexAttention's missing backward pass on a CPU
        return str(error)
    return None


def main() -> None:
    """Measure what the command line asks for."""
    parser = option_parser(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SCALES, default=list(SCALES), help="by image size")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 8, 2, 1], help="one for each shape")
    parser.add_argument("--heads", type=int, default=4, help="of 64 channels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    print(surroundings(options.device, options.precision) + f", {options.heads} heads of 64\n")
    print("| shape | tokens | batch | pass | " + " | ".join(f"{name}: ms" for name in ATTENTIONS), end=" | ")
    print(" | ".join(f"dense / {name}" for name in ATTENTIONS[1:]) + " |")
    print("|" + " --- |" * (2 * len(ATTENTIONS) + 3))
    reasons: dict[str, str] = {}
    for shape, batch in zip(options.shapes, options.batches, strict=True):
        # 1. random queries, keys and values of a batch, and which scale each token is of
        sides = SCALES[shape]
        bounds = (0, *accumulate(side**2 for side in sides))
        scale_of = torch.arange(len(sides)).repeat_interleave(torch.tensor(sides) ** 2).to(options.device)
        kind = {"device": options.device, "dtype": getattr(torch, options.precision), "requires_grad": True}
        qkv = torch.randn(batch, bounds[-1], 3, options.heads, 64, **kind)
        for backward in (False, True):
            # 2. the candidates that can run this pass
            given = (qkv, scale_of[:, None] >= scale_of, bounds)
            runs = {name: partial(step, *given, name, backward) for name in ATTENTIONS}
            missing = {name: reason for name, run in runs.items() if (reason := available(run))}
            reasons |= missing
            runs = {name: run for name, run in runs.items() if name not in missing}
            # 3. their times in turn, and a line of the table
            times = paired(runs, options.repeats, options.device)
            cells = [f"{1e3 * statistics.median(times[name]):.1f}" if name in times else "-" for name in ATTENTIONS]
            for name in ATTENTIONS[1:]:
                cells.append(f"{ratio(times['dense'], times[name]):.2f}" if name in times else "-")
            what = "forward and backward" if backward else "forward"
            print(f"| {shape} | {bounds[-1]} | {batch} | {what} | {' | '.join(cells)} |", flush=True)
    for name, reason in reasons.items():
        print(f"\n{name} is not available for every pass: {reason}")


if __name__ == "__main__":
    main()
