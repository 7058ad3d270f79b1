"""VAR: next-scale prediction (arXiv 2404.02905), a multi-scale tokenizer and the transformer over its tokens."""

from models.var.cache import Cache, Condition
from models.var.checkpoints import fill_official, load_official_var, load_official_vqvae, to_official
from models.var.discriminator import Discriminator
from models.var.noise import gumbel_noise
from models.var.planes import Planes
from models.var.presets import PRESETS
from models.var.quantizer import Quantized, Quantizer
from models.var.sampling import Sampled, Sampling, ScaleGeneration
from models.var.scales import token_masks
from models.var.transformer import VAR
from models.var.vqvae import VQVAE, VQOutput

__all__ = [
    "PRESETS",
    "VAR",
    "VQVAE",
    "Cache",
    "Condition",
    "Discriminator",
    "Planes",
    "Quantized",
    "Quantizer",
    "Sampled",
    "Sampling",
    "ScaleGeneration",
    "VQOutput",
    "fill_official",
    "gumbel_noise",
    "load_official_var",
    "load_official_vqvae",
    "to_official",
    "token_masks",
]
