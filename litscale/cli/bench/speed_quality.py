"""The picture of a benchmark of decoders: speed against quality."""

from __future__ import annotations

from matplotlib.figure import Figure

from callbacks.reporting.result_table import ResultTable

COLOURS = {"target": "#3b6fb6", "draft": "#8a919b", "collaborative": "#d9822b", "speculative": "#4c9f70"}
"""By the first word of a decoder's name."""
OWN_COLOUR = "#8e5ea2"  # of other decoders


def speed_and_quality(table: ResultTable) -> Figure:
    """A point for each decoder: its speed-up, and how its FID differs from that of the target alone.

    Without FID, the share of tokens that are the target's.

    Args:
        table: of a benchmark, see `decode_report`.
    """
    quality = next(name for name in ("fid_change", "token_agreement") if name in table.shown)
    figure = Figure(figsize=(11, 6), dpi=120, layout="constrained")
    axis = figure.subplots()
    points = {label: row for label, row in table.rows.items() if quality in row}
    for number, (label, row) in enumerate(points.items(), start=1):
        place = row["speedup"], row[quality]
        colour = COLOURS.get(label.split(": ")[-1].split()[0], OWN_COLOUR)
        axis.scatter(*place, color=colour, label=f"{number}  {label}", zorder=3)  # type: ignore[arg-type]
        axis.annotate(str(number), place, textcoords="offset points", xytext=(5, 3), fontsize=8, color="#50565e")
    axis.axvline(1, color="#c5c9ce", linewidth=1)
    axis.axhline(0 if quality == "fid_change" else 1, color="#c5c9ce", linewidth=1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set(xlabel="speed-up over the target alone", ylabel=table.shown[quality].title, title=table.title)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure
