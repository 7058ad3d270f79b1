"""The words of a command line as W&B's sweeps write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OPTION = re.compile(r"[A-Za-z_][\w.]*\+?=")


def as_options(words: Sequence[str]) -> list[str]:
    """``model.optimization.lr=0.1`` as ``--model.optimization.lr=0.1``, and Python's None as null.

    Args:
        words: of a command line. What follows an option without ``=`` is its value, and gets no hyphens.
    """
    made: list[str] = []
    value = False
    for word in words:
        if not value and _OPTION.match(word):
            word = f"--{word}"
        if word.startswith("--") and word.endswith("=None"):
            word = f"{word.removesuffix('None')}null"
        made.append("null" if value and word == "None" else word)
        value = word.startswith("-") and "=" not in word
    return made
