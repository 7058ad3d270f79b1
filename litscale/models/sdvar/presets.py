"""Decoders by name, as data."""

from __future__ import annotations

from typing import Any

from litscale.models.sdvar.decoders import Decoder, Handoff
from litscale.models.sdvar.speculative import Speculative
from litscale.models.var import VAR, VQVAE

_DECODERS: dict[str, type[Handoff] | type[Speculative]] = {"Handoff": Handoff, "Speculative": Speculative}

PRESETS: dict[str, dict[str, Any]] = {
    "quality": {"decoder": "Handoff", "entry_num": 2, "mask": "block_without_current"},
    "balanced": {"decoder": "Handoff", "entry_num": 5, "mask": "sd_without_current"},
    "speed": {"decoder": "Handoff", "entry_num": 8, "mask": "sd_with_current"},
    "lossless": {"decoder": "Speculative", "gamma": 2, "acceptance": "coupled"},
    "adaptive": {"decoder": "Speculative", "gamma": "adaptive", "acceptance": "coupled"},
}
"""Name of the decoder and its arguments. ``quality``, ``balanced`` and ``speed`` are meant for models of 10 scales."""


def decoder_preset(name: str, draft: VAR, target: VAR, vqvae: VQVAE | None = None) -> Decoder:
    """Build a decoder of :data:`PRESETS`.

    Raises:
        ValueError: unknown name, models that do not fit together, or fewer scales than the preset needs.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    arguments = dict(PRESETS[name])
    return _DECODERS[arguments.pop("decoder")](draft, target, vqvae, **arguments)
