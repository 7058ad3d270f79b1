"""Names of rules, policies and decoders, for tables."""

from __future__ import annotations

from dataclasses import Field, fields, is_dataclass
from typing import Any


class Described:
    """An object whose text, ``str(...)``, is its name in tables: its class and the options that are not the defaults.

    Options are read from dataclasses. Other classes override ``__str__``, so that objects with other options have
    another name: rows of a table are told apart by it.
    """

    def __str__(self) -> str:
        options: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        values = {option: getattr(self, option.name) for option in options if option.repr}
        shown = [f"{option.name} {value}" for option, value in values.items() if value != option.default]
        return ", ".join([type(self).__name__, *shown])
