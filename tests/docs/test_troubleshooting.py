"""Each message that docs/troubleshooting.md quotes is one that the code gives."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| `(.+?)` \| (.+) \| (.+) \|$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def template(node):
    """A text of the code, with ``…`` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(value.value if isinstance(value, ast.Constant) else "…" for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


@cache
def texts():
    """All texts of the installed packages."""
    files = [
        file
        for package in ("litscale", "lit_models", "datamodules", "callbacks")
        for file in (ROOT / package).rglob("*.py")
    ]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return "\n".join({template(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)})


def test_there_are_messages():
    assert len(ROWS) >= 40


@pytest.mark.parametrize("message", [row[0] for row in ROWS])
def test_a_message_is_in_the_code(message):
    assert message.removeprefix("… ").removesuffix(" …") in texts()
