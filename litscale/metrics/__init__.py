"""Metrics of sets of samples, which are correct on several ranks (torchmetrics), and their feature extractors."""

from litscale.metrics.digit_features import DigitFeatures
from litscale.metrics.fashion_features import FashionFeatures
from litscale.metrics.features import InceptionFeatures, MusicFeatures
from litscale.metrics.fid import FeatureStatistics, FrechetDistance
from litscale.metrics.fidelity import FeatureBank, InceptionScore, KernelDistance, PrecisionRecall
from litscale.metrics.music_statistics import MusicStatistics

__all__ = [
    "DigitFeatures",
    "FashionFeatures",
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
