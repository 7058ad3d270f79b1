"""Metrics over many samples, correct on several ranks (torchmetrics)."""

from metrics.music_statistics import MusicStatistics

__all__ = ["MusicStatistics"]
