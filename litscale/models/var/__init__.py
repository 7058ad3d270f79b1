"""VAR: next-scale prediction (arXiv 2404.02905), a multi-scale tokenizer and the transformer over its tokens."""

from litscale.models.var.cache import Cache, Condition
from litscale.models.var.checkpoints import fill_official, load_official_var, load_official_vqvae, to_official
from litscale.models.var.discriminator import Discriminator
from litscale.models.var.generate import Sampled, generate
from litscale.models.var.generation_options import VARGeneration
from litscale.models.var.network_state import NetworkState, Pass
from litscale.models.var.noise import gumbel_noise
from litscale.models.var.presets import PRESETS
from litscale.models.var.pruning import Pruning
from litscale.models.var.quantizer import Quantized, Quantizer
from litscale.models.var.scales import token_masks
from litscale.models.var.transformer import VAR
from litscale.models.var.vqvae import VQVAE, VQOutput

__all__ = [
    "PRESETS",
    "VAR",
    "VQVAE",
    "Cache",
    "Condition",
    "Discriminator",
    "NetworkState",
    "Pass",
    "Pruning",
    "Quantized",
    "Quantizer",
    "Sampled",
    "VARGeneration",
    "VQOutput",
    "fill_official",
    "generate",
    "gumbel_noise",
    "load_official_var",
    "load_official_vqvae",
    "to_official",
    "token_masks",
]
