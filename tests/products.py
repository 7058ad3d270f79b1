"""Products of parameters, of which the default tests take a part that covers every pair."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest


def every_pair(*choices: Sequence[Any]) -> list[Any]:
    """All combinations for ``pytest.mark.parametrize``; ``slow`` but for a few in which every pair of values occurs.

    Args:
        choices: the values of each parameter.
    """
    cases = list(product(*(range(len(values)) for values in choices)))
    pairs = {case: set(combinations(enumerate(case), 2)) for case in cases}
    chosen, missing = set(), set.union(*pairs.values())
    while missing:
        best = max(cases, key=lambda case: len(pairs[case] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return [
        pytest.param(
            *(values[place] for values, place in zip(choices, case, strict=True)),
            marks=() if case in chosen else pytest.mark.slow,
        )
        for case in cases
    ]
