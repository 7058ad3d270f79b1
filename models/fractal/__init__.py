"""Fractal generative models: MAR and AR levels from coarse patches to single symbols."""

from models.fractal.fractal import Fractal
from models.fractal.terms import FractalOutput

__all__ = ["Fractal", "FractalOutput"]
