"""The report of a comparison of decoders: their calls, their speed and the quality of their images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callbacks.reporting.result_table import Column, Report, ResultTable

COLUMNS = {
    "target_calls_per_image": Column("target calls", right=True),
    "draft_calls_per_image": Column("draft calls", right=True),
    "target_tokens_per_image": Column("target tokens computed", "{:.0f}", right=True),
    "draft_tokens_per_image": Column("draft tokens computed", "{:.0f}", right=True),
    "accepted_scales_per_call": Column("accepted per call", right=True),
    "ms_per_image": Column("ms per image", right=True),
    "speedup": Column("speed-up", "{:.2f}x", right=True),
    "arithmetic": Column("by arithmetic", "{:.2f}x", right=True),
    "wall_ms": Column("profiled ms", right=True),
    "draft_ms": Column("draft ms", right=True),
    "target_ms": Column("target ms", right=True),
    "sampling_ms": Column("sampling ms", right=True),
    "vae_ms": Column("tokenizer ms", right=True),
    "network_ms": Column("networks' ms by costs", right=True),
    "token_agreement": Column("token agreement", "{:.1%}", right=True),
    "pixel_difference": Column("pixel difference", right=True),
    "fid": Column("Frechet distance", right=True),
    "fid_difference": Column("its difference", right=True),
    "fid_error": Column("standard error", right=True),
    "fid_change": Column("change of the Frechet distance", "{:+.1%}", right=True),
}


def decode_report(
    name: str,
    caption: str,
    settings: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, float]],
    more: Mapping[str, Column] | None = None,
) -> Report:
    """Return the report, which shows decoders side by side.

    Args:
        name: name of the files, without ending.
        caption: a text that holds for all rows.
        settings: the settings on which the numbers depend.
        rows: name of a decoder -> its numbers; those of :data:`COLUMNS` and ``more`` are shown.
        more: columns of this report alone.
    """
    drawn = ", ".join(f"{option} {value}" for option, value in settings.items() if value is not None)
    data = {"name": name, "facts": caption, "settings": dict(settings), "rows": dict(rows)}
    return Report(
        name,
        "Decoders",
        [ResultTable("decoder", {**COLUMNS, **(more or {})}, rows, caption)],
        data,
        remark=f"With {drawn}.",
    )
