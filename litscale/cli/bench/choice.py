"""``litscale bench decode --choose``: the fastest decoder within a bound on its loss of quality."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_models import LitSDVAR
from litscale.cli.bench.decoder_grid import Bench, Case
from litscale.cli.bench.measured import Numbers, measured
from litscale.models.sdvar import (
    CollaborativeDecoding,
    Costs,
    Decoder,
    DraftOnly,
    FixedGamma,
    Refine,
    Speculative,
    TargetOnly,
)
from litscale.models.sdvar.described import Described
from litscale.models.var import VARGeneration


def bound_of(words: str) -> float:
    """Parse the largest loss of quality, as a share of the target's Frechet distance.

    Args:
        words: a text such as ``quality<=1%`` or ``quality<=0.01``.

    Raises:
        ValueError: the text has another form.
    """
    match = re.fullmatch(r"\s*quality\s*<=\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", words)
    if match is None:
        raise ValueError(f"choose must be like 'quality<=1%' or 'quality<=0.01', not {words!r}")
    return float(match[1]) / (100 if match[2] else 1)


def predicted_ms(bench: Bench, cases: Sequence[Case], batch: int) -> dict[str, float]:
    """Return label -> predicted milliseconds of the networks for an image, by the cost model and the passes of a batch.

    Args:
        bench: the benchmark, which decodes the batch.
        cases: the decoders.
        batch: number of images in the batch.
    """
    index = torch.arange(batch, device=bench.model.device)
    costs: dict[VARGeneration, Costs] = {}
    times = {}
    for case in cases:
        bench.take_draft(case)
        if case.options not in costs:
            costs[case.options] = Costs.measure(bench.model.draft, bench.model.target, batch, case.options)
        passes = bench.decode(case.decoder, case.options, index, 0).report.passes
        times[case.label] = 1e3 * costs[case.options].seconds(passes) / batch
    return times


def choose_decoder(
    bench: Bench, cases: Sequence[Case], bound: float, unfinished: Path, settings: str
) -> tuple[dict[str, Numbers], Case]:
    """Measure decoders, the fastest first, until one is within the bound; the target alone always is.

    Args:
        bench: the benchmark, which measures.
        cases: the decoders, the target alone first.
        bound: largest relative change of the Frechet distance.
        unfinished: file of the measurements so far.
        settings: all that the numbers depend on, see `Bench.identity`.

    Returns:
        The numbers of the target alone and of the decoders that were measured, by label, and the chosen decoder.
    """
    # 1. the order, by the cost model
    expected = predicted_ms(bench, cases, bench.speed_batches[0])
    alone, *others = cases
    tried = []
    # 2. quality, from the fastest on
    for case in sorted(others, key=lambda case: expected[case.label]):
        if expected[case.label] >= expected[alone.label]:
            break
        tried.append(case)
        made = measured({case.label: partial(bench.row, case)}, unfinished, settings)
        if made[case.label]["fid_change"] <= bound:
            break
    # 3. the table of these, with their times
    rows = bench.rows([alone, *tried], unfinished, settings)
    for label, row in rows.items():
        row["network_ms"] = expected[label]
    good = [case for case in tried if rows[case.label]["fid_change"] <= bound]
    return rows, good[-1] if good else alone


def layer(case: Case, model: LitSDVAR) -> str:
    """Return the options of a case as a layer of YAML, to be given after the pair's config.

    It holds all options of generation, since the benchmark may have been given other ones than the config's.

    Args:
        case: the decoder.
        model: the pair of the config, whose own decoder is left out of the layer.
    """
    # a round trip through JSON makes lists of tuples
    options: dict[str, Any] = {"generation": json.loads(json.dumps(asdict(case.options)))}
    if case.draft is not None:
        options["draft_checkpoint"] = case.draft
    if case.decoder is not model.decoder:
        kind = type(case.decoder)
        given = {"class_path": f"litscale.models.sdvar.{kind.__name__}", "init_args": decoder_options(case.decoder)}
        options["decoder"] = given
    return yaml.safe_dump({"model": {"init_args": options}}, sort_keys=False)


def decoder_options(decoder: Decoder) -> dict[str, Any]:
    """Return the options of a decoder of the grid, as a config has them.

    Raises:
        TypeError: the decoder has another class.
    """
    match decoder:
        case TargetOnly() | DraftOnly():
            return {}
        case Refine():
            return {"large_scales": decoder.entry_num}
        case CollaborativeDecoding():
            return {"entry_num": decoder.entry_num, "mask": decoder.mask}
        case Speculative(gamma=FixedGamma(gamma=gamma)):
            return {"gamma": gamma, "acceptance": rule_options(decoder.acceptance)}
        case Speculative():
            return {"gamma": rule_options(decoder.gamma), "acceptance": rule_options(decoder.acceptance)}
    raise TypeError(f"{type(decoder).__name__} is not a decoder of the grid")


def rule_options(rule: Described) -> dict[str, Any]:
    """Return the class and options of a rule or policy, as a config has them, without measured values."""
    given = {field.name: getattr(rule, field.name) for field in fields(rule) if field.repr}  # type: ignore[arg-type]
    return {"class_path": f"{type(rule).__module__}.{type(rule).__name__}", "init_args": given}
