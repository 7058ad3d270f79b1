"""The picture of a benchmark of decoders: speed against quality, and the front of the best ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from callbacks.reporting.result_table import ResultTable

COLOURS = {"target": "#3b6fb6", "draft": "#8a919b", "refine": "#c0504d"}
COLOURS |= {"collaborative": "#d9822b", "speculative": "#4c9f70"}
"""First word of a decoder's name -> colour."""
OWN_COLOUR = "#8e5ea2"  # of other decoders
FREE = 12  # points around the middle of a label
OFFSETS = 9 * np.array([(1, 0.7), (1, -0.7), (-1, 0.7), (-1, -0.7), (0, 1.1), (0, -1.1), (1.4, 0), (-1.4, 0)])
"""Places of a label relative to its point, the usual place first; in points of 1/72 inch."""


def speed_and_quality(table: ResultTable) -> Figure:
    """Draw a point for each decoder: its speed-up, and how its FID differs from that of the target alone.

    Without FID, the picture shows the share of tokens that equal the target's. The decoders on the front, which no
    other one beats in both, are joined by a line, and bold in the legend.

    Args:
        table: table of a benchmark, see `decode_report`.
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
    axis.axvline(1, color="#c5c9ce", linewidth=1)
    axis.axhline(0 if quality == "fid_change" else 1, color="#c5c9ce", linewidth=1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set(xlabel="speed-up over the target alone", ylabel=table.shown[quality].title, title=table.title)
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.draw_without_rendering()  # lays it out, which says where the points are
    drawn = axis.transData.transform(list(places.values())) * 72 / figure.dpi
    entries = zip(places.items(), legend.get_texts(), label_offsets(drawn), strict=True)
    for number, ((label, place), text, offset) in enumerate(entries, start=1):
        weight = "bold" if label in best else "normal"
        text.set_fontweight(weight)
        spot = {"xytext": offset, "textcoords": "offset points", "ha": "center", "va": "center"}
        axis.annotate(f"{number}", place, fontsize=8, weight=weight, **spot)
    return figure


def label_offsets(points: np.ndarray) -> np.ndarray:
    """Return places for the labels of points, chosen one after the other, that are free of other points and labels.

    Args:
        points: positions of the points, float ``[n, 2]``, in points of 1/72 inch.

    Returns:
        The middle of each label beside its point, float ``[n, 2]``: the first of the usual places that is free, or the
        one that is farthest from all else.
    """
    chosen = np.zeros((0, 2))
    for i, point in enumerate(points):
        others = np.concatenate([np.delete(points, i, axis=0), points[: len(chosen)] + chosen, [[np.inf, np.inf]]])
        distances = np.linalg.norm((point + OFFSETS)[:, None] - others, axis=-1).min(axis=1)
        chosen = np.concatenate([chosen, [OFFSETS[np.minimum(distances, FREE).argmax()]]])
    return chosen


def front(places: Mapping[str, tuple[float, float]], lower_is_better: bool) -> list[str]:
    """Return the names that no other one beats in both speed and quality, the fastest first.

    Args:
        places: name -> speed and quality.
        lower_is_better: whether a lower quality number is the better one.
    """
    sign = 1 if lower_is_better else -1
    best: list[str] = []
    for label, (_, quality) in sorted(places.items(), key=lambda item: (-item[1][0], sign * item[1][1])):
        if not best or sign * quality < sign * places[best[-1]][1]:
            best.append(label)
    return best
