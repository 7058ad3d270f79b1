"""Metrics over many samples, correct on several ranks (torchmetrics), and the features that they compare."""

from metrics.digit_features import DigitFeatures
from metrics.features import InceptionFeatures, MusicFeatures
from metrics.fidelity import FeatureBank, InceptionScore, KernelDistance, PrecisionRecall
from metrics.frechet import FeatureStatistics, FrechetDistance
from metrics.music_statistics import MusicStatistics

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
