"""Speculative decoding of VAR: a small draft proposes scales, a large target checks them or takes over."""

from models.sdvar.acceptance import ACCEPTANCES, Acceptance, Forced, acceptance_rule
from models.sdvar.costs import Costs
from models.sdvar.decoders import Decoded, Decoder, DraftOnly, Handoff, TargetOnly
from models.sdvar.gamma import AdaptiveGamma, CostGamma, FixedGamma, GammaPolicy
from models.sdvar.masks import MASKS, prefix_mask
from models.sdvar.presets import PRESETS, decoder_preset
from models.sdvar.report import DecodeReport, Round
from models.sdvar.speculative import Speculative

__all__ = [
    "ACCEPTANCES",
    "MASKS",
    "PRESETS",
    "Acceptance",
    "AdaptiveGamma",
    "CostGamma",
    "Costs",
    "DecodeReport",
    "Decoded",
    "Decoder",
    "DraftOnly",
    "FixedGamma",
    "Forced",
    "GammaPolicy",
    "Handoff",
    "Round",
    "Speculative",
    "TargetOnly",
    "acceptance_rule",
    "decoder_preset",
    "prefix_mask",
]
