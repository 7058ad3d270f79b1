"""Imports of the command line: our own packages first, then modules of the working directory."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).parents[2]
OWN = ("lit_models", "datamodules", "callbacks")


def prepare_imports() -> None:
    """Let configs name classes of modules in the working directory, which is searched after our own packages.

    Raises:
        ImportError: a module of the working directory or of another project would be imported in place of one of our
            packages, as with ``python -m``, which puts the working directory first.
    """
    for folder in (HOME, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    for name in OWN:
        spec = find_spec(name)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if str(HOME / name) not in places:
            other = next((place for place in places if place), "nothing")
            raise ImportError(
                f"{other} is found in place of litscale's own package {name} ({HOME / name}): rename it, take "
                "its folder out of PYTHONPATH, or run the command `litscale` instead of python -m litscale, which "
                "looks into the working directory first"
            )


def passed_over(message: str) -> str:
    """Return the end of a message about a missing class, which names modules that were not searched for it.

    Args:
        message: the beginning of the message, which quotes the class path.

    Returns:
        A clause for each module of the working directory that has the name of one of our packages, for which reason the
        class was not looked for in it; empty if there is none.
    """
    text = ""
    for name in OWN:
        for path in (Path.cwd() / f"{name}.py", Path.cwd() / name / "__init__.py"):
            if f"'{name}." in message and path.is_file() and path.parent not in (HOME, HOME / name):
                text += f"; {path} was not looked at, since {name} is a package of litscale's own: rename it"
    return text
