"""LightningModules."""

from lit_models.lit_fractal import LitFractal
from lit_models.lit_sdvar import LitSDVAR
from lit_models.lit_var import LitVAR
from lit_models.lit_vqvae import LitVQVAE
from lit_models.optimization import Optimization
from lit_models.tokenizer.options import Adversary, TokenizerLoss
from litscale.models.fractal import Generation
from litscale.models.var import VARGeneration

__all__ = [
    "Adversary",
    "Generation",
    "LitFractal",
    "LitSDVAR",
    "LitVAR",
    "LitVQVAE",
    "Optimization",
    "TokenizerLoss",
    "VARGeneration",
]
