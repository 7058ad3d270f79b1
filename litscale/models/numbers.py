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
    """Convert a whole number of Python, numpy or torch to an int.

    Raises:
        ValueError: it is no whole number; the message names the option.
    """
    try:
        return int(operator.index(given))
    except REFUSALS as error:
        raise ValueError(f"{name} must be a whole number, not {given}") from error


def real(name: str, given: Any) -> float:
    """Convert a number of Python, numpy or torch to a float.

    Raises:
        ValueError: it is no number, but for example text; the message names the option.
    """
    try:
        if isinstance(given, str):
            raise TypeError
        return float(given)
    except REFUSALS as error:
        raise ValueError(f"{name} must be a number, not {given}") from error


def one_or_more(name: str, given: Any, number: Callable[[str, Any], Number]) -> Number | tuple[Number, ...]:
    """Convert one number to a Python number, or a list or an array of them to a tuple, which can be hashed.

    Args:
        name: name of the option.
        given: the value that a user has given.
        number: :func:`whole` or :func:`real`.

    Raises:
        ValueError: a value is no number; the message names the option.
    """
    if isinstance(given, Iterable) and not isinstance(given, str):
        try:
            values = tuple(given)
        except TypeError:  # an array without dimensions
            return number(name, given)
        return tuple(number(name, value) for value in values)
    return number(name, given)
