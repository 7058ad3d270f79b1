"""Values that must not be recorded: passwords, keys and tokens on command lines, in messages and in diffs."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
# Whole words: `tokens` and `monkey` are none. In `dbToken` and `APIToken` a word begins with its capital letter.
_CAPITAL = r"(?-i:(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]))"
_BEFORE, _AFTER = rf"(?:(?<![A-Za-z])|{_CAPITAL})", r"(?![A-Za-z])"
_SURE = r"(?:(?:api|access|secret|private)[_-]?key|token|password|passwd|pwd|passphrase|secret|credentials?)"
_NAME = rf"(?:{_SURE}|key|auth)"
_OPTION = re.compile(rf"--?[\w.-]*{_BEFORE}{_NAME}", re.IGNORECASE)
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
_BEARER = re.compile(r"(\bBearer\s+)[\w+/=.~-]{6,}", re.IGNORECASE)  # of an Authorization header


def mask_command(words: Sequence[str]) -> list[str]:
    """The words of a command line, with ``***`` in place of the values of keys, tokens, passwords and secrets.

    Args:
        words: ``--name value``, ``--name=value``, and values that are YAML or JSON.
    """
    masked: list[str] = []
    secret = False
    for word in words:
        masked.append(MASK if secret and not word.startswith("--") else mask_text(word))
        secret = _OPTION.fullmatch(word) is not None
    return masked


def mask_text(text: str) -> str:
    """The same of a text, such as the message of an error: ``name=value`` and ``name: value``, and addresses."""
    return _addressed(_IN_WORDS.sub(rf"\1{MASK}", text))


def mask_code(text: str) -> str:
    """The same of source code or a diff of it, where only strings and what looks like random text are values."""
    return _addressed(_IN_CODE.sub(rf"\1{MASK}", text))


def _addressed(text: str) -> str:
    return _SIGNATURE.sub(rf"\1{MASK}", _BEARER.sub(rf"\1{MASK}", _IN_ADDRESS.sub(MASK, text)))
