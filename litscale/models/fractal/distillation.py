"""Which fractal models can teach which: those whose distributions depend on the same cells."""

from __future__ import annotations

from litscale.models.fractal.fractal import Fractal


def check_teacher(student: Fractal, teacher: Fractal) -> None:
    """Refuse a teacher whose distributions are not those of the student's symbols given the student's context.

    Widths, blocks, heads, positions and dropout may differ.

    Raises:
        ValueError: naming all options that differ.
    """
    own, given = _conditionals(student), _conditionals(teacher)
    differing = [f"{option} {given[option]} instead of {own[option]}" for option in own if own[option] != given[option]]
    if differing:
        raise ValueError(f"the teacher has {', '.join(differing)}")


def _conditionals(model: Fractal) -> dict[str, object]:
    """The options that say which distributions a network gives: of what, and given what."""
    generators = [level.generator for level in model.levels]
    return {
        "sizes": [list(size) for size in model.sizes],
        "generators": ["ar" if generator.causal else "mar" for generator in generators],
        "scan": [generator.config.scan if generator.causal else "any" for generator in generators],
        "codec": model.codec.name,
        "alphabet": model.codec.alphabet,
        "num_classes": model.num_classes,
        "guiding": any(level.guide_head is not None for level in model.levels),
    }
