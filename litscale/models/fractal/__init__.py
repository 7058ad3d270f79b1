"""Fractal generative models: MAR and AR levels from coarse patches to single symbols."""

from litscale.models.fractal.checkpoints import fill_official, load_official, to_official
from litscale.models.fractal.diagnostics import LevelAttention, attention_report
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.sampling import Generation
from litscale.models.fractal.terms import FractalOutput
from litscale.models.fractal.windows import sample_any_width

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
