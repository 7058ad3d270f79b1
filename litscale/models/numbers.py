"""Numbers of options in Python's own types.

Those of numpy and torch are no int or float, so checks would refuse them, and JSON cannot hold them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)
REFUSALS = (TypeError, ValueError, RuntimeError)  # of Python, numpy and torch


def whole(name: str, given: Any) -> int:
    """Return a whole number of any library.

    Raises:
        ValueError: it is something else; the message names the option.
    """
    try:
        return int(operator.index(given))
    except REFUSALS as error:
        raise ValueError(f"{name} must be a whole number, not {given}") from error


def real(name: str, given: Any) -> float:
    """Return a number of any library.

    Raises:
        ValueError: it is something else, such as text; the message names the option.
    """
    try:
        if isinstance(given, str):
            raise TypeError
        return float(given)
    except REFUSALS as error:
        raise ValueError(f"{name} must be a number, not {given}") from error


def one_or_more(name: str, given: Any, number: Callable[[str, Any], Number]) -> Number | tuple[Number, ...]:
    """Return one number, or a tuple of those of a list or an array; a list could not be hashed.

    Args:
        name: of the option.
        given: what a user has given.
        number: :func:`whole` or :func:`real`.

    Raises:
        ValueError: there are other things than numbers; the message names the option.
    """
    if isinstance(given, Iterable) and not isinstance(given, str):
        try:
            values = tuple(given)
        except TypeError:  # an array without dimensions
            return number(name, given)
        return tuple(number(name, value) for value in values)
    return number(name, given)
