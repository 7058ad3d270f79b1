"""Which fractal models can work together: a teacher and its student, a draft and the network that it guesses for."""

from __future__ import annotations

from litscale.models.fractal.fractal import Fractal
from litscale.models.fractal.variants import kinds

SYMBOLS = ("sizes", "codec", "alphabet", "num_classes")  # options of networks that draw the same canvases


def check_teacher(student: Fractal, teacher: Fractal) -> None:
    """Refuse a teacher that does not predict the same symbols from the same context as the student.

    Widths, blocks, heads, positions and dropout may differ.

    Raises:
        ValueError: options differ; the message names all of them.
    """
    check_same("teacher", student, teacher, tuple(_conditionals(student)))


def check_draft(model: Fractal, draft: Fractal, parallel: int) -> None:
    """Refuse a draft that cannot guess the first level's patches of a network.

    All levels of both networks must be AR. They must draw the same symbols, and visit these patches in the same order.

    Args:
        model: the network.
        draft: the network that is to guess its patches.
        parallel: the level whose canvases are decoded in parallel.

    Raises:
        ValueError: the first level's patches are not decoded in parallel, and the message says why; or options differ,
            and the message names them.
    """
    needed = (
        "guess 'draft' needs two networks of AR levels only, parallel_level 1 or none, and decoding 'jacobi' "
        "('auto' on rolls)"
    )
    for role, network in (("network", model), ("draft", draft)):
        if not all(level.generator.causal for level in network.levels):
            raise ValueError(f"{needed}: here the levels of the {role} are {', '.join(kinds(network))}")
    if parallel == len(model.levels):
        raise ValueError(f"{needed}: here decoding is sequential")
    if parallel != 1:
        raise ValueError(f"{needed}: here parallel_level is {parallel}")
    check_same("draft", model, draft, SYMBOLS)
    if model.levels[0].generator.config.scan != draft.levels[0].generator.config.scan:
        raise ValueError("the draft must visit the first level's patches in the network's order: give it the same scan")


def check_same(role: str, model: Fractal, other: Fractal, options: tuple[str, ...]) -> None:
    """Refuse another network if one of these options differs; ``role`` is what the message calls it.

    Raises:
        ValueError: options differ; the message names them.
    """
    own, given = _conditionals(model), _conditionals(other)
    differing = [f"{name} {given[name]} instead of {own[name]}" for name in options if own[name] != given[name]]
    if differing:
        raise ValueError(f"the {role} has {', '.join(differing)}")


def _conditionals(model: Fractal) -> dict[str, object]:
    """Return the options that determine which conditional distributions a network models."""
    generators = [level.generator for level in model.levels]
    return {
        "sizes": [list(size) for size in model.sizes],
        "generators": kinds(model),
        "scan": [generator.config.scan if generator.causal else "any" for generator in generators],
        "codec": model.codec.name,
        "alphabet": model.codec.alphabet,
        "num_classes": model.num_classes,
        "guiding": any(level.guide_head is not None for level in model.levels),
    }
