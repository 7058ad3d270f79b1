"""Comparison of a decoder with the target alone, on the same labels and noise.

Dimensions: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from litscale.models.codec import Codec
from litscale.models.sdvar import Decoded, DecodeReport


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The images of a decoder and of the target alone for the same labels and noise.

    Attributes:
        canvas: Symbols of the decoder, uint8 ``[B, C, H, W]``.
        target_canvas: Symbols of the target alone, uint8 ``[B, C, H, W]``.
        report: The report of the decoder.
        target_report: The report of the target alone.
        agreement: Fraction of the tokens of each image that are equal, float64 ``[B]``.
        difference: Mean absolute difference of the pixels of each image, which are in 0..1, float32 ``[B]``.
    """

    canvas: Tensor
    target_canvas: Tensor
    report: DecodeReport
    target_report: DecodeReport
    agreement: Tensor
    difference: Tensor

    def totals(self) -> dict[str, float]:
        """Return sums for :func:`rates`, which may be added over batches and processes."""
        return self.report.totals() | {
            "target_only/seconds": self.target_report.seconds["wall"],
            "agreement": float(self.agreement.sum()),
            "difference": float(self.difference.sum()),
        }


def no_totals(scales: int) -> dict[str, float]:
    """Return :meth:`Comparison.totals` for zero images."""
    return DecodeReport(scales, 0, ()).totals() | dict.fromkeys(("target_only/seconds", "agreement", "difference"), 0.0)


def compare(made: Decoded, alone: Decoded, codec: Codec) -> Comparison:
    """Compare what a decoder and the target alone made of the same labels and noise.

    Args:
        made: The images of the decoder.
        alone: The images of the target alone.
        codec: The meaning of the channels of images.
    """
    equal = torch.cat([a == b for a, b in zip(made.tokens, alone.tokens, strict=True)], dim=1)
    return Comparison(
        canvas=codec.to_symbols(made.images.float() * 2 - 1),
        target_canvas=codec.to_symbols(alone.images.float() * 2 - 1),
        report=made.report,
        target_report=alone.report,
        agreement=equal.double().mean(1),
        difference=(made.images.float() - alone.images.float()).abs().mean((1, 2, 3)),
    )


def rates(sums: Mapping[str, float]) -> dict[str, float]:
    """Return rates per image, call or scale, from sums of :meth:`Comparison.totals`.

    They are ``target_calls_per_image``, ``draft_calls_per_image``, ``target_tokens_per_image`` and
    ``draft_tokens_per_image`` (computed tokens, with those of guidance), ``gflops_per_image``,
    ``accepted_scales_per_call`` (of the target), ``ms_per_image``, ``target_only_ms_per_image``, ``speedup`` (their
    ratio), ``token_agreement``, ``pixel_difference``, and ``acceptance/scale_<k>`` of the scales that were verified.
    Rates whose divisor is 0 are left out.
    """
    ratios = {
        "target_calls_per_image": ("target_calls", "images"),
        "draft_calls_per_image": ("draft_calls", "images"),
        "target_tokens_per_image": ("target_computed_tokens", "images"),
        "draft_tokens_per_image": ("draft_computed_tokens", "images"),
        "gflops_per_image": ("flops", "images"),
        "accepted_scales_per_call": ("accepted_scales", "target_calls"),
        "ms_per_image": ("seconds/wall", "images"),
        "target_only_ms_per_image": ("target_only/seconds", "images"),
        "speedup": ("target_only/seconds", "seconds/wall"),
        "token_agreement": ("agreement", "images"),
        "pixel_difference": ("difference", "images"),
    }
    scales = [name.removeprefix("verified/") for name in sums if name.startswith("verified/")]
    ratios |= {f"acceptance/{scale}": (f"accepted/{scale}", f"verified/{scale}") for scale in scales}
    quotients = {name: sums[over] / sums[under] for name, (over, under) in ratios.items() if sums[under]}
    units = {"ms_per_image": 1e3, "target_only_ms_per_image": 1e3, "gflops_per_image": 1e-9}
    return {name: value * units.get(name, 1) for name, value in quotients.items()}
