"""Values that must not be recorded: passwords, keys and tokens on command lines, in messages and in diffs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

MASK = "***"
# Whole words: `tokens` and `monkey` are none. In `dbToken` and `APIToken` a word begins with its capital letter.
_CAPITAL = r"(?-i:(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]))"
_BEFORE, _AFTER = rf"(?:(?<![A-Za-z])|{_CAPITAL})", r"(?![A-Za-z])"
_SURE = r"(?:(?:api|access|secret|private)[_-]?key|token|password|passwd|pwd|passphrase|secret|credentials?)"
_NAME = rf"(?:{_SURE}|key|auth)"
_NAMED = re.compile(rf"[\w.-]*{_BEFORE}{_NAME}", re.IGNORECASE)  # an option, a variable or a key, without dashes
_IN_WORDS = re.compile(
    rf"""({_BEFORE}{_NAME}{_AFTER}["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s,}}\]]+)""",
    re.IGNORECASE,
)
# In code, `token = next(tokens)` is no secret. A string is taken for one, and what is long and has digits.
_IN_CODE = re.compile(
    rf"""({_BEFORE}{_SURE}{_AFTER}["']?\s*[:=]\s*)("[^"]+"|'[^']+'|(?=\S*\d)[\w+/=~.-]{{8,}}(?=[\s,}}\]]|$))""",
    re.IGNORECASE,
)
_IN_ADDRESS = re.compile(r"""(?<=://)[^/\s"']+(?=@)""")  # up to the last @, as passwords may hold some
_SIGNATURE = re.compile(r"""([?&][\w.-]*\bsig(?:nature)?=)[^&\s"']+""", re.IGNORECASE)  # who has the address may read
_BEARER = re.compile(  # of an Authorization header
    r"""((?:\bBearer|\bAuthorization["']?\s*[:=]\s*["']?Basic)\s+)[\w+/=.~-]{6,}""", re.IGNORECASE
)


def mask_command(words: Sequence[str]) -> list[str]:
    """Replace the values of keys, tokens, passwords and secrets in a command line by ``***``.

    Args:
        words: ``--name value``, ``--name=value``, and values that are YAML or JSON.

    Returns:
        As many words.
    """
    masked: list[str] = []
    secret = False
    for word in words:
        name, equals, value = word.partition("=")
        if secret and not word.startswith("--"):
            masked.append(MASK)
        elif equals and value and _NAMED.fullmatch(name):
            masked.append(f"{name}={MASK}")  # all of it, whatever it holds
        elif equals and value and name.startswith("--"):
            masked.append(f"{name}={mask_command([value])[0]}")
        else:
            masked.append(mask_yaml(word))
        secret = word.startswith("-") and _NAMED.fullmatch(word) is not None
    return masked


def mask_yaml(text: str) -> str:
    """Replace the values of keys that name a secret in YAML, such as a config, by ``***``.

    Values may have several words or lines. Text that is no YAML is masked as `mask_text` does it.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return mask_text(text)
    parts, end = [], 0
    for start, stop in sorted(_secret_places(root, set())):
        if start >= end:
            parts += [mask_text(text[end:start]), MASK]
            end = start + len(text[start:stop].rstrip())  # a block of lines ends where the next key begins
    return "".join([*parts, mask_text(text[end:])])


def _secret_places(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[int, int]]:
    """Yield start and end of the values of keys that name a secret; ``seen`` guards against circles of aliases."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, value) for value in node.value]
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and _NAMED.fullmatch(key.value):
            yield value.start_mark.index, value.end_mark.index
        else:
            yield from _secret_places(value, seen)


def mask_values(value: Any) -> Any:
    """Replace secrets by ``***`` in mappings and lists of values that YAML or JSON can hold."""
    if isinstance(value, Mapping):
        return {
            name: MASK if each is not None and _NAMED.fullmatch(str(name)) else mask_values(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [mask_values(each) for each in value]
    return mask_text(value) if isinstance(value, str) else value


def mask_text(text: str) -> str:
    """Replace secrets by ``***`` in text such as an error message: ``name=value``, ``name: value``, and addresses."""
    return _addressed(_IN_WORDS.sub(rf"\1{MASK}", text))


def mask_code(text: str) -> str:
    """Replace secrets by ``***`` in code or a diff, where only strings and random-looking text count as values."""
    return _addressed(_IN_CODE.sub(rf"\1{MASK}", text))


def _addressed(text: str) -> str:
    return _SIGNATURE.sub(rf"\1{MASK}", _BEARER.sub(rf"\1{MASK}", _IN_ADDRESS.sub(MASK, text)))
