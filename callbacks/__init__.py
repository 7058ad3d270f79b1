"""Callbacks for Lightning's trainer: evaluation, samples, diagnostics, checkpoints and writers of predictions."""

from callbacks.attention_diagnostics import AttentionDiagnostics
from callbacks.checkpoints import Checkpoints
from callbacks.generation_quality import GenerationQuality
from callbacks.gradient_norms import GradientNorms
from callbacks.level_losses import LevelLosses
from callbacks.music_evaluation import MusicEvaluation
from callbacks.pixel_baseline import PixelBaseline
from callbacks.prediction_writer import PredictionWriter
from callbacks.samples import Samples
from callbacks.sweep_trial import SweepTrial
from callbacks.target_calls import TargetCalls
from callbacks.throughput import Throughput
from callbacks.token_writer import TokenWriter

__all__ = [
    "AttentionDiagnostics",
    "Checkpoints",
    "GenerationQuality",
    "GradientNorms",
    "LevelLosses",
    "MusicEvaluation",
    "PixelBaseline",
    "PredictionWriter",
    "Samples",
    "SweepTrial",
    "TargetCalls",
    "Throughput",
    "TokenWriter",
]
