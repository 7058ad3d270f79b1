"""Options of generation that ``litscale bench decode`` measures beside those of the pair: changes and their names."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from jsonargparse import ArgumentParser

from litscale.cli.messages import in_one_line
from litscale.models.var import Pruning, VARGeneration


def changed(options: VARGeneration, change: Mapping[str, Any], scales: int) -> VARGeneration:
    """Return options of generation with some of them changed.

    Args:
        options: the options before the change.
        change: option -> new value, as a config spells it.
        scales: number of scales of the networks.

    Raises:
        ValueError: there is no such option, or its value is out of range, has another type, or does not fit the number
            of scales.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(VARGeneration, "generations")
    parser.set_defaults({"generations": asdict(options)})
    try:
        made: VARGeneration = parser.instantiate_classes(parser.parse_object({"generations": dict(change)})).generations
    except ArgumentError as error:
        raise ValueError(in_one_line(error.message, ())) from error
    made.check(scales)
    return made


def changes(options: VARGeneration, plain: VARGeneration) -> list[str]:
    """Return words on how options differ from the plain ones, for the name of a row."""
    words = []
    for name in (each.name for each in fields(options)):
        value, before = getattr(options, name), getattr(plain, name)
        if value == before:
            continue
        if isinstance(value, Pruning):
            words.append(f"pruned from scale {value.from_scale} to {', '.join(map(str, value.ratios))}")
        elif isinstance(value, tuple):
            starts = [k for k, given in enumerate(value) if given != (value[k - 1] if k else before)]
            words += [f"{name} {value[k]}" + (f" from scale {k}" if k else "") for k in starts]
        else:
            words.append(f"{name} {value}")
    return words
