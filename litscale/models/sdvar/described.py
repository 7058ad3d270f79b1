"""Options in words, for tables."""

from __future__ import annotations

from dataclasses import Field, fields, is_dataclass
from typing import Any


class Described:
    """What can be named in a table: as text it is its class' name and, of a dataclass, what differs from the defaults.

    Two objects that do not do the same should not read the same: a class with other options overrides ``__str__``.
    """

    def __str__(self) -> str:
        options: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        values = {option: getattr(self, option.name) for option in options if option.repr}
        shown = [f"{option.name} {value}" for option, value in values.items() if value != option.default]
        return ", ".join([type(self).__name__, *shown])
