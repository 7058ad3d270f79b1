"""LightningModules."""

from lit_models.lit_fractal import Generation, LitFractal
from lit_models.optimization import Optimization

__all__ = ["Generation", "LitFractal", "Optimization"]
