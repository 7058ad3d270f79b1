"""What exact parallel decoding took, in one call and over several."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class GenerationReport:
    """What exact parallel decoding did in one call.

    Attributes:
        patches: patches that were decoded in parallel, of all canvases.
        passes: passes of the levels below, each over one patch of every canvas that is not finished.
        patch_passes: the same passes, counted once for each patch.
        draft: the report of the network that guesses, if there is one.
    """

    def __init__(self) -> None:
        self.patches, self.passes, self.patch_passes = 0, 0, 0
        self.draft: GenerationReport | None = None
        self._symbols: int | Tensor = 0
        self._margin: Tensor | None = None

    def drafts(self) -> GenerationReport:
        """Return the report of the network that guesses; the first call makes it."""
        self.draft = GenerationReport() if self.draft is None else self.draft
        return self.draft

    def settled(self, patches: int, symbols: int | Tensor, margin: Tensor) -> None:
        """Add settled patches and the number of their symbols that were drawn, and update the least ``margin``."""
        self.patches += patches
        self._symbols = self._symbols + symbols
        self._margin = margin if self._margin is None else torch.minimum(self._margin, margin)

    @property
    def symbols(self) -> int:
        """Number of symbols of these patches that were drawn: channels of cells, and guiding values."""
        return int(self._symbols)

    @property
    def margin(self) -> float:
        """Least lead, in logits, of a drawn symbol over the runner-up; infinite if no symbol had one.

        Rounding that moves the logits by less cannot change the sample.
        """
        return math.inf if self._margin is None else float(self._margin)

    def counts(self) -> dict[str, float]:
        """Return all counts by name. Over several calls, take the least ``margin``, and the sum of all others."""
        return {
            "patches": self.patches,
            "passes": self.passes,
            "patch_passes": self.patch_passes,
            "symbols": self.symbols,
            "draft_passes": 0 if self.draft is None else self.draft.passes,
            "margin": self.margin,
        }

    def summary(self) -> dict[str, float]:
        """Summarise :meth:`counts` for people to read, see :func:`decoding_summary`."""
        return decoding_summary(self.counts())


def decoding_summary(counts: Mapping[str, float]) -> dict[str, float]:
    """Summarise the counts of one or several reports for people to read.

    Args:
        counts: those of :meth:`GenerationReport.counts`; empty where nothing was counted.

    Returns:
        ``passes``, the means ``passes_per_patch`` and ``accepted_per_pass`` and, where a network has drafted,
        ``draft_passes``; ``margin``, unless no symbol had a runner-up: all were known, or ``min_p`` left one
        possibility for each. Nothing if no patch was decoded in parallel.
    """
    if not counts.get("patches"):
        return {}
    drafts = {"draft_passes": counts["draft_passes"]} if counts["draft_passes"] else {}
    margin = {} if counts["margin"] == math.inf else {"margin": counts["margin"]}
    means = {
        "passes": counts["passes"],
        "passes_per_patch": counts["patch_passes"] / counts["patches"],
        "accepted_per_pass": counts["symbols"] / counts["patch_passes"],
    }
    return drafts | means | margin
