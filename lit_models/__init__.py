"""LightningModules."""

from lit_models.lit_fractal import LitFractal
from lit_models.lit_sdvar import LitSDVAR
from lit_models.lit_var import LitVAR
from lit_models.lit_vqvae import LitVQVAE
from lit_models.optimization import Optimization
from lit_models.runs import load_run
from lit_models.tokenizer.options import DiscriminatorConfig, TokenizerLoss
from litscale.models.fractal import Generation
from litscale.models.var import VARGeneration

__all__ = [
    "DiscriminatorConfig",
    "Generation",
    "LitFractal",
    "LitSDVAR",
    "LitVAR",
    "LitVQVAE",
    "Optimization",
    "TokenizerLoss",
    "VARGeneration",
    "load_run",
]
