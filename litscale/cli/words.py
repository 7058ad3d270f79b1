"""The words of a command line as other programs write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OPTION = re.compile(r"[A-Za-z_][\w.]*\+?=")


def with_hyphens(words: Sequence[str]) -> list[str]:
    """``model.optimization.lr=0.1`` as ``--model.optimization.lr=0.1``, which W&B's ``${args_no_hyphens}`` leaves out.

    Args:
        words: of a command line. What follows an option without ``=`` is its value, and stays.
    """
    made: list[str] = []
    value = False
    for word in words:
        made.append(f"--{word}" if not value and _OPTION.match(word) else word)
        value = word.startswith("-") and "=" not in word
    return made
