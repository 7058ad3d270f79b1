"""The examples of docs/extending.md run, each section in a folder of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(section.split("\n", 1) for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])


@pytest.mark.parametrize("section", SECTIONS)
def test_examples_run(tmp_path, section):
    """Blocks that begin with a file's name are files; the other Python blocks are run, one after the other."""
    blocks = re.findall(r"```(?:python|yaml)\n(# (\S+\.(?:py|yaml))\n)?(.*?)```", SECTIONS[section], flags=re.DOTALL)
    for _, name, text in blocks:
        if name:
            (tmp_path / name).write_text(text)
    imports = "".join(f"import {Path(name).stem}\n" for _, name, _ in blocks if name.endswith(".py"))
    (tmp_path / "program.py").write_text(imports + "".join(text for _, name, text in blocks if not name))
    run = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert blocks
    assert run.returncode == 0, run.stderr[-3000:]
