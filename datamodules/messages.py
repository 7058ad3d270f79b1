"""Messages to the user, worded alike everywhere."""

from __future__ import annotations

from collections.abc import Sequence


def abridged(items: Sequence[str]) -> str:
    """Join the first five items, and say how many more there are."""
    return "; ".join(items[:5]) + (f"; and {len(items) - 5} more" if len(items) > 5 else "")


def check_least(**options: tuple[int | None, int]) -> None:
    """Refuse options below their least value; options that are None are not checked.

    Raises:
        ValueError: naming the first such option.
    """
    for name, (value, least) in options.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
