"""Networks like another one but for what generates their patches, for comparisons."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch

from litscale.models.fractal.canvas import grid_of
from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.level import GENERATORS
from litscale.models.fractal.options import initialise


def kinds(network: Fractal) -> list[str]:
    """Return the generator of each level, ``ar`` or ``mar``."""
    return ["ar" if level.generator.causal else "mar" for level in network.levels]


def variant(network: Fractal, generators: list[str], width: int) -> Fractal:
    """Build a network with other generators and another canvas width, otherwise the same, with random weights.

    The weights are the same at every call. A first level that is MAR has no preceding columns, as :class:`Fractal`
    has none there.

    Args:
        network: the network that it resembles, with the same channels, blocks and heads in each level.
        generators: ``ar`` or ``mar`` for each level.
        width: columns of its canvas, a multiple of the first level's patch.

    Returns:
        The network, on the device of the other one.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = deepcopy(network)
        other.sizes[0] = (other.sizes[0][0], width)
        blind = generators[0] == "mar"
        if blind:
            other.preceding = replace(other.preceding, columns=0, margin=0, average=0)
        conditions = other.root_conditions
        for i, (level, kind) in enumerate(zip(other.levels, generators, strict=True)):
            config = replace(level.generator.config, conditions=conditions)
            if i == 0:
                config = replace(config, grid=grid_of(other.sizes[0], level.patch))
            elif blind:
                config = replace(config, before_features=0)
            level.generator = GENERATORS[kind](config)
            conditions = level.generator.conditions_out
        initialise(other)
    return other.to(network.no_class.device)
