"""The picture of a benchmark of decoders: speed against quality."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from callbacks.decode_table import TITLES, DecodeTable

COLOURS = {"target": "#3b6fb6", "draft": "#8a919b", "handoff": "#d9822b", "speculative": "#4c9f70"}
"""By the first word of a decoder's name."""


def speed_and_quality(table: DecodeTable) -> Figure:
    """A point for each decoder: its speed-up, and how its FID differs from that of the target alone.

    Without FID, the share of tokens that are the target's.

    Args:
        table: of a benchmark.
    """
    quality = next(name for name in ("fid_change", "token_agreement") if name in table.columns)
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for kind, colour in COLOURS.items():
        points = {
            label: row
            for label, row in table.rows.items()
            if label.split(": ")[-1].split()[0] == kind and quality in row
        }
        if not points:
            continue
        xs, ys = ([row[name] for row in points.values()] for name in ("speedup", quality))
        axis.scatter(xs, ys, color=colour, label=kind, zorder=3)
        for label, x, y in zip(points, xs, ys, strict=True):
            axis.annotate(label, (x, y), textcoords="offset points", xytext=(5, 3), fontsize=6, color="#50565e")
    axis.margins(x=0.2)  # for the names
    axis.axvline(1, color="#c5c9ce", linewidth=1)
    axis.axhline(0 if quality == "fid_change" else 1, color="#c5c9ce", linewidth=1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set(xlabel="speed-up over the target alone", ylabel=TITLES[quality], title=table.facts)
    axis.legend(frameon=False, fontsize=8)
    return figure
