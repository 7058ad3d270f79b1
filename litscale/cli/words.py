"""The words of a command line: as W&B's sweeps write them, exported models by name, and configs before options."""

from __future__ import annotations

import re
from collections.abc import Sequence

from litscale.storage import exported

CONFIG = ("--config", "-c")
PRETRAINED = "--model.pretrained"
WITHOUT_WEIGHTS = ("costs", "masks")  # of bench, for which weights do not matter
_OPTION = re.compile(r"[A-Za-z_][\w.]*\+?=")


def as_options(words: Sequence[str]) -> list[str]:
    """Spell ``model.optimization.lr=0.1`` as ``--model.optimization.lr=0.1``, and Python's None as null.

    Args:
        words: words of a command line. A word after an option without ``=`` is its value, and gets no hyphens.
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


def with_exported(words: Sequence[str]) -> list[str]:
    """Replace ``--model.pretrained NAME`` by an exported model's config, placed before all others, and its weights.

    Args:
        words: words of a command line, its command first.

    Raises:
        FileNotFoundError: there is no such model; the message names the option.
    """
    others: list[str] = []
    given: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name != PRETRAINED:
            others.append(word)
            continue
        try:
            folder = exported.exported_folder(value if equals else next(left, ""))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{PRETRAINED} {error}") from error
        given = ["--config", str(folder / exported.CONFIG)]
        if words[0] not in WITHOUT_WEIGHTS:
            given += ["--weights" if words[0] == "fit" else "--ckpt_path", str(folder / exported.WEIGHTS)]
    return [*others[:1], *given, *others[1:]]


def configs_first(words: Sequence[str]) -> list[str]:
    """Put all configs before all options, so that options override configs whatever their order.

    Args:
        words: words of a command line, its command first.
    """
    if not words or words[0].startswith("-"):
        return list(words)
    configs: list[str] = []
    options: list[str] = []
    part = options
    for word in words[1:]:
        name, equals, _ = word.partition("=")
        if name in CONFIG:
            part = configs
        elif word.startswith("--"):
            part = options
        part.append(word)
        if part is configs and (equals or name not in CONFIG):  # the config is complete
            part = options
    return [words[0], *configs, *options]


def given_configs(words: Sequence[str]) -> list[str]:
    """Return the values of ``--config``, in order."""
    pairs = zip(words, [*words, ""][1:], strict=True)
    options = ((word.partition("="), after) for word, after in pairs)
    return [value if equals else after for (name, equals, value), after in options if name in CONFIG]
