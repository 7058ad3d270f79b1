"""The picture of a benchmark of decoders: speed against quality, and the front of the best."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from callbacks.reporting.result_table import ResultTable

COLOURS = {"target": "#3b6fb6", "draft": "#8a919b", "refine": "#c0504d"}
COLOURS |= {"collaborative": "#d9822b", "speculative": "#4c9f70"}
"""By the first word of a decoder's name."""
OWN_COLOUR = "#8e5ea2"  # of other decoders


def speed_and_quality(table: ResultTable) -> Figure:
    """A point for each decoder: its speed-up, and how its FID differs from that of the target alone.

    Without FID, the share of tokens that are the target's. The decoders on the front, which no other one beats in both,
    are joined, and bold in the legend.

    Args:
        table: of a benchmark, see `decode_report`.
    """
    quality = next(name for name in ("fid_change", "token_agreement") if name in table.shown)
    figure = Figure(figsize=(11, 6), dpi=120, layout="constrained")
    axis = figure.subplots()
    places = {
        label: (float(row["speedup"]), float(row[quality]))  # type: ignore[arg-type]
        for label, row in table.rows.items()
        if quality in row
    }
    best = front(places, lower_is_better=quality == "fid_change")
    axis.plot(*zip(*(places[label] for label in best), strict=True), color="#50565e", linewidth=1, zorder=2)
    for number, (label, place) in enumerate(places.items(), start=1):
        colour = COLOURS.get(label.split(": ")[-1].split()[0], OWN_COLOUR)
        axis.scatter(*place, color=colour, label=f"{number}  {label}", zorder=3)
        weight = "bold" if label in best else "normal"
        axis.annotate(f"{number}", place, textcoords="offset points", xytext=(5, 3), fontsize=8, weight=weight)
    axis.axvline(1, color="#c5c9ce", linewidth=1)
    axis.axhline(0 if quality == "fid_change" else 1, color="#c5c9ce", linewidth=1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set(xlabel="speed-up over the target alone", ylabel=table.shown[quality].title, title=table.title)
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    for label, text in zip(places, legend.get_texts(), strict=True):
        text.set_fontweight("bold" if label in best else "normal")
    return figure


def front(places: Mapping[str, tuple[float, float]], lower_is_better: bool) -> list[str]:
    """The names that no other one beats in speed and in quality, from the fastest on.

    Args:
        places: speed and quality by name.
        lower_is_better: whether a lower quality number is the better one.
    """
    sign = 1 if lower_is_better else -1
    best: list[str] = []
    for label, (_, quality) in sorted(places.items(), key=lambda item: (-item[1][0], sign * item[1][1])):
        if not best or sign * quality < sign * places[best[-1]][1]:
            best.append(label)
    return best
