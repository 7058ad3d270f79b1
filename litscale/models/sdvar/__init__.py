"""Speculative decoding of VAR: a small draft proposes scales, a large target verifies them or takes over."""

from litscale.models.sdvar.acceptance import (
    KL,
    Acceptance,
    Agreement,
    Coupled,
    Forced,
    Proposal,
    Rejection,
    TopK,
    VerifyResult,
)
from litscale.models.sdvar.costs import Costs
from litscale.models.sdvar.decoders import (
    CollaborativeDecoding,
    Decoded,
    Decoder,
    DecoderFactory,
    DraftOnly,
    Refine,
    TargetOnly,
    Task,
)
from litscale.models.sdvar.gamma import AdaptiveGamma, CostGamma, FixedGamma, GammaPolicy
from litscale.models.sdvar.masks import MASKS, prefix_mask
from litscale.models.sdvar.report import DecodeReport, Round
from litscale.models.sdvar.speculative import Speculative

__all__ = [
    "KL",
    "MASKS",
    "Acceptance",
    "AdaptiveGamma",
    "Agreement",
    "CollaborativeDecoding",
    "CostGamma",
    "Costs",
    "Coupled",
    "DecodeReport",
    "Decoded",
    "Decoder",
    "DecoderFactory",
    "DraftOnly",
    "FixedGamma",
    "Forced",
    "GammaPolicy",
    "Proposal",
    "Refine",
    "Rejection",
    "Round",
    "Speculative",
    "TargetOnly",
    "Task",
    "TopK",
    "VerifyResult",
    "prefix_mask",
]
