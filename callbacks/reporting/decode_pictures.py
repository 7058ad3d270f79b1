"""Pictures of speculative decoding: which network made which scale, and what the prefix masks hide."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from litscale.models.sdvar import MASKS, DecodeReport, prefix_mask
from litscale.models.sdvar.report import LEGEND

COLOURS = {"d": "#4c9f70", "r": "#d9822b", "t": "#3b6fb6", ".": "#e3e5e8"}
"""Mark of :data:`litscale.models.sdvar.report.LEGEND` -> colour."""
GAP = 0.35  # between rounds, in cells
MOST_ROWS = 16  # images of a timeline


def timeline(report: DecodeReport) -> Figure:
    """Draw what happened to each image: a row of cells, one for each scale drafted or made, with gaps between rounds.

    Args:
        report: report of a decoding run, of which the first `MOST_ROWS` images are drawn.
    """
    rows = min(MOST_ROWS, report.images)
    figure = Figure(figsize=(9, 1.4 + 0.28 * rows), dpi=120, layout="constrained")
    axis = figure.subplots()
    width = max((_draw_row(axis, report, image) for image in range(rows)), default=1.0)
    axis.set(xlim=(-0.1, width), ylim=(rows - 0.45, -0.55), ylabel="image", title=_title(report))
    axis.set_yticks(range(rows))
    axis.set_xticks([])
    axis.spines[:].set_visible(False)
    handles = [Patch(color=COLOURS[mark], label=meaning) for mark, meaning in LEGEND.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def mask_pictures(patch_nums: Sequence[int], entry_num: int) -> Figure:
    """Draw all prefix masks side by side: a cell is filled if the row's token may attend to the column's.

    Args:
        patch_nums: side of each scale's token map.
        entry_num: number of the entry scale, the target's first.

    Raises:
        ValueError: there is no such scale.
    """
    masks = {name: prefix_mask(name, patch_nums, entry_num) for name in MASKS}
    bounds = [sum(side**2 for side in patch_nums[:k]) for k in range(1, entry_num + 1)]
    figure = Figure(figsize=(9, 6.4), dpi=120, layout="constrained")
    for axis, (name, mask) in zip(figure.subplots(2, 3).flat, masks.items(), strict=True):
        axis.imshow(mask.numpy(), cmap="Blues", vmin=0, vmax=1.4, interpolation="nearest")
        for bound in bounds:
            axis.axhline(bound - 0.5, color="#8a919b", linewidth=0.6)
            axis.axvline(bound - 0.5, color="#8a919b", linewidth=0.6)
        axis.set(title=name, xlabel="attends to", ylabel="token")
    return figure


def _draw_row(axis: Axes, report: DecodeReport, image: int) -> float:
    """Draw the cells of an image, with the numbers of their scales, and return where they end, in cells."""
    left = 0.0
    for entry in report.rounds:
        if image not in entry.images:
            continue
        for scale, mark in enumerate(entry.marks(entry.images.index(image)), start=entry.first):
            axis.add_patch(Rectangle((left, image - 0.4), 0.94, 0.8, color=COLOURS[mark]))
            ink = "#70777f" if mark == "." else "white"
            axis.text(left + 0.47, image, str(scale), color=ink, fontsize=7, ha="center", va="center")
            left += 1
        left += GAP
    return left


def _title(report: DecodeReport) -> str:
    target, draft = report.target_calls / report.images, report.draft_calls / report.images
    return f"calls per image: target {target:.2f}, draft {draft:.2f} ({report.images} images)"
