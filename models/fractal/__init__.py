"""Fractal generative models: MAR and AR levels from coarse patches to single symbols."""

from models.fractal.checkpoints import fill_official, load_official, to_official
from models.fractal.diagnostics import LevelAttention, attention_report
from models.fractal.fractal import Fractal
from models.fractal.sampling import Generation
from models.fractal.terms import FractalOutput
from models.fractal.windows import sample_any_width

__all__ = [
    "Fractal",
    "FractalOutput",
    "Generation",
    "LevelAttention",
    "attention_report",
    "fill_official",
    "load_official",
    "sample_any_width",
    "to_official",
]
