"""Speculative decoding of VAR: a small draft proposes scales, a large target checks them or takes over."""

from litscale.models.sdvar.acceptance import ACCEPTANCES, Acceptance, Forced, acceptance_rule
from litscale.models.sdvar.costs import Costs
from litscale.models.sdvar.decoders import Decoded, Decoder, DraftOnly, Handoff, TargetOnly
from litscale.models.sdvar.gamma import AdaptiveGamma, CostGamma, FixedGamma, GammaPolicy
from litscale.models.sdvar.masks import MASKS, prefix_mask
from litscale.models.sdvar.presets import PRESETS, decoder_preset
from litscale.models.sdvar.report import DecodeReport, Round
from litscale.models.sdvar.speculative import Speculative

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
