"""Metrics over many samples, correct on several ranks (torchmetrics), and the features that they compare."""

from litscale.metrics.digit_features import DigitFeatures
from litscale.metrics.features import InceptionFeatures, MusicFeatures
from litscale.metrics.fid import FeatureStatistics, FrechetDistance
from litscale.metrics.fidelity import FeatureBank, InceptionScore, KernelDistance, PrecisionRecall
from litscale.metrics.music_statistics import MusicStatistics

__all__ = [
    "DigitFeatures",
    "FeatureBank",
    "FeatureStatistics",
    "FrechetDistance",
    "InceptionFeatures",
    "InceptionScore",
    "KernelDistance",
    "MusicFeatures",
    "MusicStatistics",
    "PrecisionRecall",
]
