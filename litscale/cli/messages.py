"""What a parser says of a wrong option, as one line: the option, its value, and what would be right."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from litscale.cli.config_files import find_config, with_layers
from litscale.cli.words import given_configs

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "collections.abc.Iterable": "a list",
}
_KEY = re.compile(r'Parser key "([^"]+)"(?: element \d+)?')
UNKNOWN = re.compile(
    r"(?:(?:Group '([^']+)'|Subcommand '[^']+') does not accept option|Option) '([^']+)'(?: is not accepted)?(.*)"
)
_EXPECTED = re.compile(r"Expected an? (?!path but|dot import)(.+?)(?:\. Got value: (.*))?$", re.MULTILINE)
_VALUE = re.compile(r"(?:Given value|Got value): (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
_CLASS = re.compile(r"Problem with given class_path '([^']+)':\s*(?!\s*Parser key|\s*Option)([^\n]+)")
_TUPLE = re.compile(r"^tuple with (\d+) elements$")
_LITERAL = "typing.Literal["
_NO_PATH = re.compile(r"Expected a dot import path string: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
_OTHER_KIND = re.compile(
    r"(?:Import path|Expected)(?: '?([\w.]+)'?)? (?:does not correspond to|to be) a subclass of (?:<class ')?(\w+)"
)
_OWNER = re.compile(r"class_path[= ]'([\w.]+)'")
_KIND = re.compile(r"(?:Callable\[.+, )?([A-Z]\w*)\]?")  # an annotation by a class, or by a callable that makes one
_SUBTYPE = re.compile(r"Subtypes: \[.*?\.([A-Z]\w*)")
_MISSING = re.compile(r"the following arguments are required: (.*)")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (\S+)(.*)")
_NESTED = re.compile(r"NestedArg\(key='[^']*', val='(.*)'\)")


def similar_option(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests a similar word for a wrong option; empty if none is similar.

    Args:
        name: the wrong option, with dots.
        known: all options. Only last words of options with the same words before the last dot are suggested, or first
            words if no option has the first word of the wrong one.
    """
    group, _, last = name.lstrip("-").rpartition(".")
    names = {option.lstrip("-") for option in known}
    first = name.lstrip("-").partition(".")[0]
    if group and not any(f"{option}.".startswith(f"{first}.") for option in names):
        return _similar(first, {option.partition(".")[0] for option in names})
    parts = (option.rpartition(".") for option in names)
    return _similar(last, [own for beside, _, own in parts if beside == group])


def _similar(name: str, known: Iterable[str], prefix: str = "") -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1) or [each for each in names if name and each.startswith(name)]
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def in_one_line(message: str, words: Sequence[str]) -> str:
    """Shorten a message of the parser to one line.

    Args:
        message: a message of jsonargparse, which has many lines if a value has none of several possible types.
        words: the command line that was parsed; it tells where a value was given.
    """
    keys = ".".join(_KEY.findall(message))
    if found := _MISSING.search(message):
        return _missing(keys, found[1].split(", "))
    if found := _UNRECOGNIZED.search(message):
        return _unrecognized(keys, found[1], found[2], words)
    # Of several types that a value may have, the first that knows the option says what is wrong.
    if (found := UNKNOWN.search(message)) and not _VALUE.search(message[: found.start()]):
        group, name, rest = found.groups()
        key = ".".join(part for part in (keys, group, name) if part)
        return f"{_where(key, words)}: there is no such option{rest}"
    if not keys:
        return " ".join(message.split())
    return f"{_where(keys, words)} {_value(message)}".rstrip() + f": {_reason(message)}"


def _unrecognized(keys: str, word: str, rest: str, words: Sequence[str]) -> str:
    _, mark, hint = rest.partition("; did you mean")
    name = word.partition("=")[0]
    if not name.startswith("-"):
        return f"{word} is neither an option nor the value of one: options begin with --"
    key = ".".join(part for part in (keys, name.lstrip("-")) if part)
    return f"{_where(key, words)}: there is no such option{mark}{hint}"


def _missing(keys: str, names: Sequence[str]) -> str:
    if keys:  # arguments of a class
        options = [f"--{keys}.{name}" for name in names]
        return f"{' and '.join(options)} must be given"
    options = [f"--{name.partition('.')[2] or name}" for name in names]  # without the command
    return f"{' and '.join(options)} must be given: by a config, such as --config demo.yaml, or as the name of a class"


def _value(message: str) -> str:
    """Return the wrong value; of a class that there is not, or of another kind, its name or path alone."""
    named = _OTHER_KIND.search(message) or _NO_PATH.search(message)
    if named and named[1]:
        return named[1]
    given = _VALUE.search(message)
    return _NESTED.sub(r"\1", given[1]) if given else ""


def _reason(message: str) -> str:
    """Return what is wrong with a value."""
    if found := _CLASS.search(message):
        return _class_reason(*found.groups())
    if found := _NO_PATH.search(message):
        name = found[1]
        return f"there is no class {name}{_of_kind(message)}{_similar(name.rpartition('.')[2], _classes())}"
    last = _of_last_key(message)
    kinds = [f"a class of the kind {found[1]}" for found in _OTHER_KIND.findall(last)]
    types = [found[0] for found in _EXPECTED.findall(last)]
    choices = [choice for name in types if name.startswith(_LITERAL) for choice in name[len(_LITERAL) : -1].split(", ")]
    one_of = [f"one of {', '.join(dict.fromkeys(choice.strip(chr(39)) for choice in choices))}"] if choices else []
    names = (name.removeprefix("<class '").removesuffix("'>") for name in types if not name.startswith(_LITERAL))
    typed = [_TUPLE.sub(r"a list of \1", TYPES.get(name, name)) for name in names]
    expected = [*one_of, *dict.fromkeys([*kinds, *typed])]
    if expected:
        # a shell ends a list at its first space
        value = _value(message)
        cut = "," in value and not value.endswith("]") and any(each.startswith("a list") for each in expected)
        hint = "; write a list as '[1,2]'" if cut else ""
        return f"expected {' or '.join(expected)}{hint}"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -") and not _KEY.search(line)]
    return " ".join(lines)


def _of_kind(message: str) -> str:
    """Return of which kind a class must be, by the annotation of the innermost option; empty if that is no class.

    An option that belongs to no class is one of the command, whose types the message itself lists.
    """
    option = _KEY.findall(message)[-1]
    for path in reversed(_OWNER.findall(message)):
        module, _, name = path.rpartition(".")
        constructor = getattr(getattr(sys.modules.get(module), name, None), "__init__", None)
        annotations = getattr(constructor, "__annotations__", {})
        if option in annotations:
            found = _KIND.fullmatch(str(annotations[option]))
            return f" of the kind {found[1]}" if found else ""
    found = _SUBTYPE.search(message)
    return f" of the kind {found[1]}" if found else ""


def _of_last_key(message: str) -> str:
    """Return the lines about the innermost option, without those about the class that has it, which may be null."""
    lines = [line for line in message.splitlines() if line.strip()]
    keys = [number for number, line in enumerate(lines) if _KEY.search(line)]
    if not keys:
        return message
    indent = len(lines[keys[-1]]) - len(lines[keys[-1]].lstrip())
    below = takewhile(lambda line: len(line) - len(line.lstrip()) > indent, lines[keys[-1] + 1 :])
    return "\n".join([lines[keys[-1]], *below])


def _class_reason(path: str, reason: str) -> str:
    module, _, name = path.rpartition(".")
    if "has no attribute" in reason and module in sys.modules:
        public = [each for each, value in vars(sys.modules[module]).items() if isinstance(value, type)]
        return f"{module} has no {name}{_similar(name, public, f'{module}.')}"
    return reason.strip()


def _classes() -> list[str]:
    """Return the names of the classes that configs may name without their module."""
    packages = (sys.modules.get(name) for name in ("lit_models", "datamodules", "callbacks"))
    return [name for package in packages for name in vars(package or sys) if name[:1].isupper()]


def _where(key: str, words: Sequence[str]) -> str:
    """Return where the value of a key was given: the option as it was typed, or the config that holds it."""
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and f".{name[2:].rstrip('+')}".endswith(f".{key}"):
            return name
    for given in reversed(given_configs(words)):
        if given.startswith("{"):  # options as text, such as W&B's ${args_json}; it may be too long for a path
            if _holds(_nested(yaml.safe_load(given)), [word for word in key.split(".") if word != "init_args"]):
                return f"--config: {key}"
            continue
        for path in reversed(with_layers(find_config(given))):
            file = Path(path)
            if file.suffix and file.is_file() and _holds(yaml.safe_load(file.read_text()), key.split(".")):
                return f"{path}: {key}"
    return f"--{key}"


def _nested(content: Any) -> Any:
    """Turn options, whose names may have dots, into lists of nested dicts, for `_holds`."""
    if not isinstance(content, dict):
        return content
    options = []
    for name, value in content.items():
        option = _nested(value)
        for word in reversed(name.split(".")):
            option = {word: option}
        options.append(option)
    return options


def _holds(content: Any, keys: list[str]) -> bool:
    """Return whether nested dicts hold a key, at any depth and below any ``init_args``."""
    if isinstance(content, list):
        return any(_holds(entry, keys) for entry in content)
    if not isinstance(content, dict):
        return False
    below = content.get(keys[0])
    if keys[0] in content and (len(keys) == 1 or _holds(below, keys[1:])):
        return True
    return any(_holds(value, keys) for value in content.values())
