"""Fractal generative models: MAR and AR levels from coarse patches to single symbols."""

from litscale.models.fractal.checkpoints import fill_official, load_official, to_official
from litscale.models.fractal.diagnostics import LevelAttention, attention_report
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.generate import generate
from litscale.models.fractal.generation_options import Generation
from litscale.models.fractal.generation_report import GenerationReport, decoding_summary
from litscale.models.fractal.network import CanvasNetwork
from litscale.models.fractal.terms import FractalOutput

__all__ = [
    "CanvasNetwork",
    "Fractal",
    "FractalOutput",
    "Generation",
    "GenerationReport",
    "LevelAttention",
    "attention_report",
    "decoding_summary",
    "fill_official",
    "generate",
    "load_official",
    "to_official",
]
